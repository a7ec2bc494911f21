"""Samples: a message of every event type, as each version of the contracts writes it.

`version_1` never changes: these are the bytes that the last process of version 1 wrote for the order in
`request.json`. `version_1/rows` holds the contents of its columns, named schema.table.column.

`version_2` documents the events as they are written now, indented for readers, about the order in
`request.json`; those of `events.life` too. A test compares them with the code, so no event changes unnoticed.
After a change that readers of version 2 understand, `python -m tests.samples` writes them anew; any other
change needs a new version.
"""

from pathlib import Path
from typing import Final

import msgspec

from events.contracts import AboutOrder, Event

VERSION_1: Final = Path(__file__).parent / "version_1"
ROWS_OF_VERSION_1: Final = VERSION_1 / "rows"
VERSION_2: Final = Path(__file__).parent / "version_2"


def indented(event: Event[AboutOrder]) -> bytes:
    """The event as it is published, indented for readers."""
    return msgspec.json.format(msgspec.json.encode(event), indent=2) + b"\n"

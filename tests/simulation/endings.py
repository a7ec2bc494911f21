"""The ways in which a step can end."""

from enum import StrEnum
from typing import Final


class Ending(StrEnum):
    """How a step ends."""

    WELL = "well"
    REFUSED = "refused"
    """An error at once; nothing was done."""
    UNDONE = "undone"
    """An error at the commit; nothing was done."""
    LOST = "lost"
    """Nothing was done, and the caller does not know."""
    ANSWER_LOST = "answer lost"
    """It was done, and the caller does not know."""
    SILENT = "silent"
    """Nothing was done, and no answer ever comes."""
    LATE = "late"
    """No answer ever comes, and it is done some time later."""
    DEFECT = "defect"
    """It raises an unexpected exception."""
    SWALLOWED = "swallowed"
    """One of its statements fails, and the handler ignores the error."""
    KILLED_BEFORE = "killed before"
    """The process dies before the effect."""
    KILLED_AFTER = "killed after"
    """The process dies after the effect."""


_DEATHS: Final = (Ending.KILLED_BEFORE, Ending.KILLED_AFTER)
TRANSACTION: Final = (Ending.REFUSED, Ending.UNDONE, Ending.ANSWER_LOST, *_DEATHS)
HANDLING: Final = (*TRANSACTION, Ending.DEFECT, Ending.SWALLOWED)
PING: Final = (Ending.REFUSED,)
PUBLISH: Final = (Ending.REFUSED, Ending.LOST, Ending.ANSWER_LOST, *_DEATHS)
ACKNOWLEDGE: Final = (Ending.LOST, *_DEATHS)
CALL: Final = (Ending.REFUSED, Ending.LOST, Ending.ANSWER_LOST, Ending.SILENT, Ending.LATE, *_DEATHS)
FREE: Final[tuple[Ending, ...]] = ()
"""For steps that always end well."""

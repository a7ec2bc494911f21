"""Fates: how a step may end."""

from enum import StrEnum
from typing import Final


class Fate(StrEnum):
    """What becomes of one step."""

    WELL = "well"
    REFUSED = "refused"
    """It is told at once that this is not possible now; nothing was done."""
    UNDONE = "undone"
    """Everything was sent, nothing was done, and that is told."""
    LOST = "lost"
    """Nothing was done, and nobody knows."""
    ANSWER_LOST = "answer lost"
    """It was done, and nobody knows."""
    SILENT = "silent"
    """Nothing was done, and no answer ever comes."""
    LATE = "late"
    """No answer ever comes, and it is done some time later."""
    DEFECT = "defect"
    """It fails in a way that nobody has foreseen."""
    SWALLOWED = "swallowed"
    """One of its statements fails, and it goes on as if nothing were."""
    KILLED_BEFORE = "killed before"
    """The process dies, and nothing was done."""
    KILLED_AFTER = "killed after"
    """The process dies, and it was done."""


_DEATHS: Final = (Fate.KILLED_BEFORE, Fate.KILLED_AFTER)
TRANSACTION: Final = (Fate.REFUSED, Fate.UNDONE, Fate.ANSWER_LOST, *_DEATHS)
HANDLING: Final = (*TRANSACTION, Fate.DEFECT, Fate.SWALLOWED)
PING: Final = (Fate.REFUSED,)
PUBLISH: Final = (Fate.REFUSED, Fate.LOST, Fate.ANSWER_LOST, *_DEATHS)
ACKNOWLEDGE: Final = (Fate.LOST, *_DEATHS)
ASK: Final = (Fate.REFUSED, Fate.LOST, Fate.ANSWER_LOST, Fate.SILENT, Fate.LATE, *_DEATHS)
FREE: Final[tuple[Fate, ...]] = ()
"""It always ends well."""

"""Progress: a log line per order and stage; under load one line per stage and second."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Final
from uuid import UUID

LINES: Final = 10
"""Most lines per second and process. Further steps are joined by stage."""
JOIN_SECONDS: Final = 1.0
"""The period over which steps are joined."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """An order has reached a stage; the transaction is committed."""

    order_id: UUID
    stage: str
    """The event's type, or a word for the work."""
    seconds: float
    """Since the order was placed."""


class ProgressLog:
    """Writes the steps to the log at INFO."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._lines = 0
        self._joined: dict[str, list[Step]] = {}
        self._closes: asyncio.TimerHandle | None = None

    def note(self, steps: Iterable[Step]) -> None:
        """Logs a line for each step, or joins it with others of this second."""
        if not logger.isEnabledFor(logging.INFO):
            return
        for step in steps:
            if self._closes is None:
                self._closes = asyncio.get_running_loop().call_later(JOIN_SECONDS, self._close)
            if self._lines < LINES:
                self._lines += 1
                self._write(step)
            else:
                self._joined.setdefault(step.stage, []).append(step)

    def _close(self) -> None:
        """Logs the joined steps when the second is over."""
        joined, self._joined = self._joined, {}
        self._lines, self._closes = 0, None
        for stage, steps in joined.items():
            if len(steps) == 1:
                self._write(steps[0])
                continue
            slowest = max(steps, key=lambda step: step.seconds)
            logger.info(
                "%s: %d orders: %s, %.2f s after they were placed at the median; the slowest, %s, %.2f s",
                *(self._service, len(steps), stage, median(step.seconds for step in steps)),
                *(slowest.order_id, slowest.seconds),
                extra={"stage": stage, "orders": len(steps)},
            )

    def _write(self, step: Step) -> None:
        logger.info(
            "%s: order %s: %s, %.2f s after it was placed",
            *(self._service, step.order_id, step.stage, step.seconds),
            extra={"order_id": str(step.order_id), "stage": step.stage, "seconds": round(step.seconds, 3)},
        )

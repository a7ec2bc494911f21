"""Exponential backoff."""

import random


def backoff(attempts: int, *, first: float = 1.0, most: float = 300.0) -> float:
    """Seconds until the next attempt. They double; jitter keeps failures from repeating at the same time."""
    return min(most, first * 2.0 ** min(attempts, 30)) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret

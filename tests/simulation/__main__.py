"""Runs many schedules: `SCHEDULES=5000 python -m tests.simulation`; or repeats one: `--seed 17`."""

import argparse
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack
from typing import Final

from tests import servers
from tests.simulation.reached import STATES
from tests.simulation.schedule import Outcome
from tests.simulation.simulator import Simulator, simulator

ENOUGH: Final = 1000
"""A run of at least so many schedules fails if it does not reach every state."""


def main() -> int:
    """Runs the schedules one after the other; returns 1 if one failed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, help="run only this schedule, and print its trace")
    options.add_argument("--first", type=int, default=0, help="the first seed")
    options.add_argument("--schedules", type=int, default=int(os.environ.get("SCHEDULES", "1000")))
    chosen = options.parse_args()
    with ExitStack() as stack:
        url = os.environ.get("TEST_POSTGRES_URL") or stack.enter_context(servers.postgres_in_container())
        simulated = stack.enter_context(simulator(url))
        if chosen.seed is not None:
            outcome = simulated.run(chosen.seed)
            _print(outcome)
            return 1 if outcome.findings else 0
        return _run_many(simulated, range(chosen.first, chosen.first + chosen.schedules))


def _run_many(simulated: Simulator, seeds: range) -> int:
    began, steps = time.monotonic(), 0
    failed: list[Outcome] = []
    reached: Counter[str] = Counter()
    for number, seed in enumerate(seeds, start=1):
        outcome = simulated.run(seed)
        steps += outcome.steps
        reached.update(outcome.reached)
        if outcome.findings:
            failed.append(outcome)
            _print(outcome)
        if number % 100 == 0 or number == len(seeds):
            rate = number / (time.monotonic() - began)
            _print(f"{number} schedules, {steps} steps, {rate:.1f}/s, {len(failed)} failed")
    _print("reached: " + ", ".join(f"{state} {reached[state]}" for state in STATES))
    never = [state for state in STATES if not reached[state]]
    if never:
        _print(f"never reached: {', '.join(never)}")
    if failed:
        _print(f"failing seeds: {[outcome.seed for outcome in failed]}")
    return 1 if failed or (never and len(seeds) >= ENOUGH) else 0


def _print(text: object) -> None:
    print(text, flush=True)  # noqa: T201  # this is a command


if __name__ == "__main__":
    sys.exit(main())

"""`make bench` measures the cost of an order in Orderflow and its peers."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from bench import report, scenarios, selection
from bench.earlier import EarlierVersion, NoEarlierVersion, unpacked
from bench.load import Refused
from bench.measure import CountsAreWrong
from bench.round_trips import of_lone_orders
from bench.rounds import CORES, in_turn, run_round
from bench.selection import Selection
from bench.servers import NoServer, servers
from bench.systems import PEERS, ROOT, DidNotStart, make_environment_of_peers, orderflow


def main() -> int:
    """Parses the options and runs the benchmark; returns the exit status."""
    options = argparse.ArgumentParser(description=__doc__, prog="make bench")
    options.add_argument("--rounds", type=int, help="number of rounds (default 3; 4 with --against)")
    options.add_argument(
        "--orders", type=int, default=8000, help="orders for Orderflow at saturation (default %(default)s)"
    )
    options.add_argument(
        "--peer-orders",
        type=int,
        default=1200,
        help="orders for each peer at saturation (default %(default)s)",
    )
    options.add_argument(
        "--growth",
        type=int,
        default=200_000,
        help="orders in the tables when `growth` ends (default %(default)s)",
    )
    options.add_argument(
        "--only",
        type=selection.names,
        action="extend",
        default=[],
        metavar="NAMES",
        help=f"run these parts only: {', '.join(selection.NAMES)} (rounds: all systems and the floor)",
    )
    options.add_argument(
        "--against", metavar="COMMIT", help="also measure Orderflow at an earlier commit, in the same rounds"
    )
    chosen = options.parse_args()
    chosen.rounds = chosen.rounds or (
        4 if chosen.against else 3
    )  # even, so that each goes first equally often
    logging.getLogger("testcontainers").setLevel(logging.WARNING)
    console = Console(soft_wrap=True)
    folder = ROOT / "var" / "bench" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    try:
        with unpacked(chosen.against) if chosen.against else nullcontext() as earlier:
            return uvloop.run(_until_sigterm(_bench(chosen, earlier, folder, console)))
    except (asyncio.CancelledError, KeyboardInterrupt):
        console.print("Interrupted. Everything that was started is removed.")
        return 130
    except (CountsAreWrong, DidNotStart, NoEarlierVersion, NoServer, Refused) as failed:
        console.print(f"[red]{failed}[/]")
        return 1


async def _until_sigterm(run: Coroutine[Any, Any, int]) -> int:
    """Runs the benchmark. SIGTERM cancels it as SIGINT does, so that everything it started is removed."""
    task = asyncio.ensure_future(run)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


async def _bench(
    chosen: argparse.Namespace, earlier: EarlierVersion | None, folder: Path, console: Console
) -> int:
    selected = Selection.of(chosen.only, against=earlier is not None)
    ours = [orderflow(), *([orderflow(earlier)] if earlier else [])] if selected.orderflow else []
    peers = [PEERS[name]() for name in selected.peers]
    systems = [*ours, *peers]
    sizes = dict.fromkeys((s.name for s in ours), chosen.orders)
    sizes |= dict.fromkeys((s.name for s in peers), chosen.peer_orders)
    if peers:
        make_environment_of_peers()
    results = report.Results(cores=CORES)
    if earlier:
        results.earlier = ours[-1].name
    with console.status("Starting PostgreSQL and RabbitMQ") as status:

        def progress(what: str, count: int) -> None:
            status.update(f"{count:,} {what}")

        async with servers() as both:
            results.servers = both.origin
            console.print(f"PostgreSQL and RabbitMQ: {both.origin}. Results and logs go to {folder}")
            for system in systems:
                console.print(f"  {system.name}: {dict(system.tuning)}")
                results.tuning[system.name] = dict(system.tuning)
            for number in range(1, chosen.rounds + 1) if systems else ():
                console.rule(f"round {number} of {chosen.rounds}")
                played = await run_round(
                    in_turn(systems, number),
                    both,
                    folder,
                    sizes,
                    console.print,
                    progress,
                    with_floor=selected.floor,
                )
                results.rounds.append(played)
                results.write(folder)
            for system in (systems or [orderflow()]) if selected.trips else ():
                console.rule(f"round trips of {system.name}")
                results.trips[system.name] = await of_lone_orders(system, both, folder, progress)
                results.write(folder)
            for name in selected.scenarios:
                console.rule(name)
                results.scenarios[name] = await scenarios.ALL[name](
                    both, folder, chosen, console.print, progress
                )
                results.write(folder)
    report.show(results, console)
    report.plot(results, folder)
    console.print(f"Results: {folder / 'results.json'}, plot: {folder / 'plot.svg'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`make bench`: what an order costs, side by side. `make bench ARGS="--only growth"` runs a part of it."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console

from bench import report, scenarios
from bench.measure import CountsAreWrong
from bench.rounds import Round, play
from bench.servers import NoServer, servers
from bench.systems import OURS, ROOT, DidNotStart, orderflow, peers

PARTS: Final = ("rounds", *scenarios.ALL)


def main() -> int:
    """Reads what is asked for, runs it, says what was seen; the exit status."""
    options = argparse.ArgumentParser(description=__doc__, prog="make bench")
    options.add_argument("--rounds", type=int, default=3, help="how often every system has its turn")
    options.add_argument("--orders", type=int, default=12_000, help="of Orderflow, at saturation")
    options.add_argument("--peer-orders", type=int, default=1200, help="of each peer, at saturation")
    options.add_argument("--growth", type=int, default=200_000, help="orders in the tables at the end")
    options.add_argument("--only", choices=PARTS, action="append", help="a part alone")
    options.add_argument("--without-peers", action="store_true", help="rounds of Orderflow alone")
    chosen = options.parse_args()
    logging.getLogger("testcontainers").setLevel(logging.WARNING)
    console = Console(soft_wrap=True)
    folder = ROOT / "var" / "bench" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    try:
        return uvloop.run(_bench(chosen, folder, console))
    except (CountsAreWrong, DidNotStart, NoServer) as failed:
        console.print(f"[red]{failed}[/]")
        return 1


async def _bench(chosen: argparse.Namespace, folder: Path, console: Console) -> int:
    parts: Sequence[str] = chosen.only or PARTS
    results = report.Results(cores=os.cpu_count() or 1)
    with console.status("starting PostgreSQL and RabbitMQ") as status:

        def progress(what: str, count: int) -> None:
            status.update(f"{count:,} {what}")

        async with servers() as both:
            results.servers = both.said
            console.print(f"PostgreSQL and RabbitMQ: {both.said}; all is kept in {folder}")
            if "rounds" in parts:
                systems = [orderflow(), *([] if chosen.without_peers else peers())]
                for system in systems:
                    console.print(f"  {system.name}: {dict(system.tuning)}")
                    results.tuning[system.name] = dict(system.tuning)
                sizes = {s.name: chosen.orders if s.name == OURS else chosen.peer_orders for s in systems}
                for number in range(1, chosen.rounds + 1):
                    console.rule(f"round {number} of {chosen.rounds}")
                    played: Round = await play(systems, both, folder, sizes, console.print, progress)
                    results.rounds.append(played)
                    results.write(folder)
            for name in scenarios.ALL:
                if name in parts:
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

"""Runs the demo: starts the system, places the orders, shows their progress and checks the outcome."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

import httpx
from rich.console import Console
from rich.padding import Padding

from chassis.process import listen
from chassis.stopping import Stopped, cancel_when, stop_on_signals
from events.journey import RANKS
from ops.embedded import ExternalServices, embedded_system
from ops.errors import INTERRUPTED
from ops.log_file import log_to_file
from ops.run import HOST
from ops.state import StateFolder
from sandbox.demo import examples
from sandbox.demo.folder import new_state
from sandbox.demo.mailbox import Mailbox
from sandbox.demo.order import DemoOrder, place_all
from sandbox.demo.screen import Screen, console, outcomes

DEADLINE: Final = 60.0
"""Seconds after which unfinished orders count as stuck."""
PAUSE: Final = 0.12
"""Seconds between two orders on a terminal, where they would pass too fast to watch."""
POLL: Final = 0.05
"""Seconds between two requests for the state of the orders."""


async def demo(folder: Path) -> int:
    """Sends the examples in `folder` through the system. Returns the exit status: 0 if all ended as expected.

    Raises:
        CommandFailed: the system can't start, or its database was lost.
    """
    started = time.monotonic()
    stop = stop_on_signals()
    orders = [DemoOrder(example) for example in examples.load(folder)]
    screen = Screen(orders, console())
    async with new_state() as state:
        log_to_file(state.log, screen.warn)
        mailbox = Mailbox(state.mails)
        screen.console.print(f"Starting five services and PostgreSQL in one process, in {state.folder} …")
        with suppress(Stopped):
            await _run(orders, state, mailbox, screen, stop)
        if stop.is_set():
            screen.console.print("Stopped before every order had ended.")
            return INTERRUPTED
        return _report(orders, state, mailbox, screen.console, time.monotonic() - started)


async def _run(
    orders: Sequence[DemoOrder], state: StateFolder, mailbox: Mailbox, screen: Screen, stop: asyncio.Event
) -> None:
    """Starts the system, sends the orders and stops it. Raises Stopped if `stop` is set before it serves."""
    done = asyncio.Event()
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(listen(HOST, 0))
        async with cancel_when(stop.wait):
            system = await stack.enter_async_context(
                embedded_system(state, None, ExternalServices.simulated(state))
            )
        async with asyncio.TaskGroup() as group:
            group.create_task(system.serve(listener, done), name="system")
            with suppress(Stopped):
                async with cancel_when(stop.wait):
                    await _watch(orders, f"http://{HOST}:{listener.getsockname()[1]}", mailbox, screen)
            done.set()


async def _watch(orders: Sequence[DemoOrder], origin: str, mailbox: Mailbox, screen: Screen) -> None:
    """Places the orders and shows them until all are finished and mailed, or DEADLINE has passed."""
    screen.console.print(f"Serving on {origin}. Placing {len(orders)} orders:")
    pause = PAUSE if screen.is_live else 0.0
    with suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE), httpx.AsyncClient(base_url=origin, trust_env=False) as api:
            placing = asyncio.create_task(place_all(orders, api, pause=pause))
            try:
                with screen.running():
                    while not (placing.done() and _all_finished(orders, mailbox)):
                        await asyncio.gather(*(order.refresh(api) for order in orders))
                        screen.update()
                        await asyncio.sleep(POLL)
                await placing
            finally:
                placing.cancel()


def _all_finished(orders: Sequence[DemoOrder], mailbox: Mailbox) -> bool:
    return all(order.is_finished for order in orders) and not mailbox.missing(orders)


def _report(
    orders: Sequence[DemoOrder], state: StateFolder, mailbox: Mailbox, console: Console, seconds: float
) -> int:
    say = partial(console.print, soft_wrap=True, markup=False)
    say("")
    console.print(outcomes(orders))
    for order in orders:
        if order.example.sent_twice and not order.replay_failure:
            say(f"\n{order.example.reference} was sent twice with one Idempotency-Key, and is one order.")
    mails = mailbox.by_stage()
    say(f"\n{sum(mails.values())} mails to customers are in {state.mails}:")
    counts = ", ".join(f"{mails[stage]} {stage}" for stage in RANKS if stage in mails)
    console.print(Padding(counts, (0, 0, 0, 2)))
    failures = [failure for order in orders for failure in order.failures()] + mailbox.missing(orders)
    if failures:
        say(f"\nNot everything ended as expected (the log is {state.log}):", style="bold red")
        for failure in failures:
            say(f"  {failure}")
        return 1
    success = f"All {len(orders)} orders ended as expected, with every mail, in {seconds:.1f} seconds."
    say(f"\n{success}", style="bold green")
    say(f"""
Try next:
  make run                  serve the same system, to place your own orders
  STATE={state.folder} make run
                            serve it with these orders in it
  make up                   run it in containers, with RabbitMQ and a mailbox""")
    return 0

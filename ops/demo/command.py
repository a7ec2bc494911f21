"""`orderflow demo`: the examples through the whole system, watched, and checked at the end."""

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
from chassis.stopping import Stopped, abandoned_when, stop_on_signals
from events.journey import RANKS
from ops.demo import examples, folder
from ops.demo.journey import Journey, place
from ops.demo.mailbox import Mailbox
from ops.demo.screen import Screen, console, summary
from ops.embedded import ExternalServices, embedded_system
from ops.errors import INTERRUPTED
from ops.log_file import log_to_file
from ops.run import HOST
from ops.state import StateFolder

DEADLINE: Final = 60.0
"""Seconds after which an order that has not come to its end counts as stuck."""
PACE: Final = 0.12
"""Seconds between two orders where somebody watches: the system is faster than the eye."""
LOOK_AGAIN: Final = 0.05
"""Seconds between two looks at where the orders stand."""


async def demo(orders: Path | None) -> int:
    """Runs the demo; returns the exit status: 0 only if everything ended as the examples say.

    `orders` is a folder of other examples than those that come with the project.

    Raises:
        CommandFailed: it could not begin, or the database was lost.
    """
    begun = time.monotonic()
    stop = stop_on_signals()
    journeys = [Journey(example) for example in examples.load(orders or examples.FOLDER)]
    screen = Screen(journeys, console())
    async with folder.fresh() as state:
        log_to_file(state.log, screen.tell)
        mailbox = Mailbox(state.mails)
        screen.console.print(f"The whole system starts in one process, in {state.folder} …")
        with suppress(Stopped):
            await _send_through(journeys, state, mailbox, screen, stop)
        if stop.is_set():
            screen.console.print("Stopped before the end.")
            return INTERRUPTED
        return _report(journeys, state, mailbox, screen.console, time.monotonic() - begun)


async def _send_through(
    journeys: Sequence[Journey], state: StateFolder, mailbox: Mailbox, screen: Screen, stop: asyncio.Event
) -> None:
    """Raises Stopped when `stop` was set before the system was ready."""
    ended = asyncio.Event()
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(listen(HOST, 0))
        async with abandoned_when(stop.wait):
            system = await stack.enter_async_context(
                embedded_system(state, None, ExternalServices.simulated(state))
            )
        async with asyncio.TaskGroup() as group:
            group.create_task(system.serve(listener, ended), name="system")
            with suppress(Stopped):
                async with abandoned_when(stop.wait):
                    await _watch(journeys, f"http://{HOST}:{listener.getsockname()[1]}", mailbox, screen)
            ended.set()


async def _watch(journeys: Sequence[Journey], origin: str, mailbox: Mailbox, screen: Screen) -> None:
    """Places the orders and follows them until all have ended and the mails are there, at most DEADLINE."""
    screen.console.print(f"It serves on {origin}. {len(journeys)} orders are placed:")
    pace = PACE if screen.is_watched else 0.0
    with suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE), httpx.AsyncClient(base_url=origin, trust_env=False) as api:
            placing = asyncio.create_task(place(journeys, api, pace=pace))
            try:
                with screen.shown():
                    while not (placing.done() and _is_quiet(journeys, mailbox)):
                        await asyncio.gather(*(journey.follow(api) for journey in journeys))
                        screen.update()
                        await asyncio.sleep(LOOK_AGAIN)
                await placing
            finally:
                placing.cancel()


def _is_quiet(journeys: Sequence[Journey], mailbox: Mailbox) -> bool:
    return all(journey.is_over for journey in journeys) and not mailbox.missing(journeys)


def _report(
    journeys: Sequence[Journey], state: StateFolder, mailbox: Mailbox, console: Console, seconds: float
) -> int:
    say = partial(console.print, soft_wrap=True, markup=False)
    say("")
    console.print(summary(journeys))
    for journey in journeys:
        if journey.example.sent_twice and not journey.replay:
            say(f"\n{journey.example.reference} was sent twice under one Idempotency-Key: still one order.")
    mails = mailbox.by_stage()
    say(f"\n{sum(mails.values())} mails to the customers are in {state.mails}:")
    counts = ", ".join(f"{mails[stage]} {stage}" for stage in RANKS if stage in mails)
    console.print(Padding(counts, (0, 0, 0, 2)))
    faults = [fault for journey in journeys for fault in journey.faults()] + mailbox.missing(journeys)
    if faults:
        say(f"\nNot everything ended as it should (the services' log is {state.log}):", style="bold red")
        for fault in faults:
            say(f"  {fault}")
        return 1
    good = f"All {len(journeys)} orders ended where they should, with every mail, in {seconds:.1f} seconds."
    say(f"\n{good}", style="bold green")
    say(f"""
Try next:
  make run                  the same system, to place your own orders
  STATE={state.folder} make run
                            the same system with these orders in it
  make up                   the same in containers, with RabbitMQ and a mailbox""")
    return 0

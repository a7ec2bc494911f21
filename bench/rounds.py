"""The rounds: every system in turn, on the same servers, so that ratios come from pairs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg

from bench.floor import Floor, floor
from bench.measure import Measured, measure_closed, measure_open
from bench.servers import Place, Servers
from bench.systems import OURS, System, running

Say = Callable[[str], None]
Progress = Callable[[str, int], None]

CONNECTIONS: Final = (128, 32)
STEADY_PER_SECOND: Final = 20.0
STEADY_ORDERS: Final = 300
WARM_UP: Final = 300


@dataclass
class Turn:
    """What one system did in one round."""

    closed: dict[int, Measured] = field(default_factory=dict)
    """By the number of connections."""
    steady: Measured | None = None
    events_per_message: float | None = None


@dataclass
class Round:
    """One time through all systems."""

    turns: dict[str, Turn] = field(default_factory=dict)
    floor: Floor | None = None


async def play(
    systems: Sequence[System],
    servers: Servers,
    logs: Path,
    sizes: Mapping[str, int],
    say: Say,
    progress: Progress,
) -> Round:
    """One round. `sizes` says how many orders each system is given at saturation."""
    played = Round()
    for system in systems:
        async with servers.place() as place:
            await system.set_up(place, logs)
            say(system.name)
            turn = played.turns[system.name] = await _turn(
                system, place, servers, logs, sizes[system.name], progress
            )
            for connections, measured in turn.closed.items():
                say(
                    f"  {connections:>4} connections: {measured.per_second:8.1f} orders/s, "
                    f"{measured.cpu_total:6.2f} ms of CPU an order, POST p99 {measured.post.p99:.0f} ms"
                )
            if system.name == OURS:
                played.floor = await floor(place, servers, turn.events_per_message or 1.0)
                say(f"       floor: {played.floor.total:.2f} ms of CPU an order")
    return played


async def _turn(
    system: System, place: Place, servers: Servers, logs: Path, orders: int, progress: Progress
) -> Turn:
    turn = Turn()
    async with running(system, place, logs) as alive:
        await measure_closed(alive, place, servers, 32, WARM_UP, progress)
        for connections in CONNECTIONS:
            turn.closed[connections] = await measure_closed(
                alive, place, servers, connections, orders, progress
            )
            if connections == CONNECTIONS[0] and system.name == OURS:
                turn.events_per_message = await events_per_message(place)
        turn.steady = await measure_open(alive, place, servers, STEADY_PER_SECOND, STEADY_ORDERS, progress)
    return turn


async def events_per_message(place: Place) -> float:
    """How many events a message of Orderflow carried."""
    connection = await asyncpg.connect(place.database_url)
    try:
        outboxes = " UNION ALL ".join(
            f'SELECT cardinality(event_ids) AS events FROM "{schema}".outbox'
            for schema in ("order", "invoice", "billing", "shipment")
        )
        per_message: float = await connection.fetchval(f"SELECT avg(events)::float8 FROM ({outboxes}) AS m")
    finally:
        await connection.close()
    return per_message

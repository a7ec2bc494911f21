"""The rounds: every system in turn, on the same servers, so that ratios come from pairs."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg

from bench.floor import Floor, floor
from bench.machine import Machine, probe
from bench.measure import Measured, measure_closed, measure_open
from bench.servers import Place, Servers
from bench.systems import OURS, Running, System, running

Say = Callable[[str], None]
Progress = Callable[[str, int], None]

CORES: Final = os.cpu_count() or 1
CONNECTIONS: Final = (128, 32)
STEADY_PER_SECOND: Final = 20.0
LOW_SECONDS: Final = 10.0
"""How long each low load lasts."""
WARM_UP: Final = 300


@dataclass
class Turn:
    """What one system did in one round."""

    closed: dict[int, Measured] = field(default_factory=dict)
    """By the number of connections."""
    steady: Measured | None = None
    """At 20 orders/s."""
    quarter_per_second: float = 0.0
    """A quarter of the capacity that the cost at 20 orders/s means."""
    quarter: Measured | None = None
    """At that rate."""
    events_per_message: float | None = None


def steady(turn: Turn) -> Measured:
    """What was seen at 20 orders/s."""
    assert turn.steady, "the turn is not over"
    return turn.steady


def quarter(turn: Turn) -> Measured:
    """What was seen at a quarter of the system's capacity."""
    assert turn.quarter, "the turn is not over"
    return turn.quarter


@dataclass
class Round:
    """One time through all systems."""

    turns: dict[str, Turn] = field(default_factory=dict)
    floor: Floor | None = None
    machine: Machine | None = None
    """Right before it."""


def capacity(cpu_ms: float, cores: int) -> float:
    """Orders/s at which orders that cost this much CPU each fill so many cores.

    With the cost at 20 orders/s, where nothing is batched, this is the capacity without batching. The cost
    includes what a system does while nothing comes.
    """
    return 1000 * cores / cpu_ms


def in_turn(systems: Sequence[System], number: int) -> list[System]:
    """The order of the systems in this round: there and back, so that a machine's drift cancels."""
    return list(systems) if number % 2 else list(reversed(systems))


async def play(
    systems: Sequence[System],
    servers: Servers,
    logs: Path,
    sizes: Mapping[str, int],
    say: Say,
    progress: Progress,
    *,
    with_floor: bool,
) -> Round:
    """One round. `sizes` says how many orders each system is given at saturation.

    The floor is measured in Orderflow's turn.
    """
    async with servers.place() as place:
        machine = await probe(place, CORES)
    played = Round(machine=machine)
    say(f"machine: {machine.python_ms:.0f} ms of Python, {machine.commit_ms:.2f} ms a commit")
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
            lows = (STEADY_PER_SECOND, steady(turn)), (turn.quarter_per_second, quarter(turn))
            for per_second, low in lows:
                say(
                    f"  {per_second:8.1f} orders/s: {low.cpu_total:6.2f} ms of CPU an order, "
                    f"order to last mail p50 {low.end_to_end.p50:.0f} ms"
                )
            if with_floor and system.name == OURS:
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
            if connections == CONNECTIONS[0] and system.outboxes:
                turn.events_per_message = await events_per_message(place, system.outboxes)
        turn.steady = await _low(alive, place, servers, STEADY_PER_SECOND, progress)
        turn.quarter_per_second = capacity(turn.steady.cpu_total, CORES) / 4
        turn.quarter = await _low(alive, place, servers, turn.quarter_per_second, progress)
    return turn


async def _low(
    alive: Running, place: Place, servers: Servers, per_second: float, progress: Progress
) -> Measured:
    orders = max(10, round(LOW_SECONDS * per_second))
    return await measure_open(alive, place, servers, per_second, orders, progress)


async def events_per_message(place: Place, schemas: Sequence[str]) -> float:
    """How many events a message carried."""
    connection = await asyncpg.connect(place.database_url)
    try:
        outboxes = " UNION ALL ".join(
            f'SELECT cardinality(event_ids) AS events FROM "{schema}".outbox' for schema in schemas
        )
        per_message: float = await connection.fetchval(f"SELECT avg(events)::float8 FROM ({outboxes}) AS m")
    finally:
        await connection.close()
    return per_message

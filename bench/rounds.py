"""The rounds: every system has its turn on the same servers, so that ratios compare neighbours in time."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg

from bench.floor import Floor, floor
from bench.machine import MachineSpeed, probe
from bench.measure import Measurement, measure_closed, measure_open
from bench.servers import Servers, Workspace
from bench.systems import OURS, Running, System, running

Say = Callable[[str], None]
Progress = Callable[[str, int], None]

CORES: Final = os.cpu_count() or 1
CONNECTIONS: Final = (128, 32)
STEADY_PER_SECOND: Final = 20.0
LOW_SECONDS: Final = 10.0
"""The length of each measurement at a low load."""
WARM_UP: Final = 300


@dataclass
class Turn:
    """The measurements of one system in one round."""

    closed: dict[int, Measurement] = field(default_factory=dict)
    """At saturation, by the number of connections."""
    steady: Measurement | None = None
    """At 20 orders/s."""
    quarter_per_second: float = 0.0
    """A quarter of the capacity that follows from the cost at 20 orders/s."""
    quarter: Measurement | None = None
    """At `quarter_per_second`."""
    events_per_message: float | None = None


def steady(turn: Turn) -> Measurement:
    """Returns the measurement at 20 orders/s."""
    assert turn.steady, "the turn is not over"
    return turn.steady


def quarter(turn: Turn) -> Measurement:
    """Returns the measurement at a quarter of the system's capacity."""
    assert turn.quarter, "the turn is not over"
    return turn.quarter


@dataclass
class Round:
    """One turn of every system."""

    turns: dict[str, Turn] = field(default_factory=dict)
    floor: Floor | None = None
    machine: MachineSpeed | None = None
    """The machine's speed just before the round."""


def capacity(cpu_ms: float, cores: int) -> float:
    """Returns the orders/s that keep the cores busy, at this cost of an order.

    With the cost at 20 orders/s, where nothing is batched, this is the capacity without batching. That cost
    includes the work of an idle system.
    """
    return 1000 * cores / cpu_ms


def in_turn(systems: Sequence[System], number: int) -> list[System]:
    """Returns the systems in this round's sequence. Every other round is reversed, so that drift cancels."""
    return list(systems) if number % 2 else list(reversed(systems))


async def run_round(
    systems: Sequence[System],
    servers: Servers,
    logs: Path,
    sizes: Mapping[str, int],
    say: Say,
    progress: Progress,
    *,
    with_floor: bool,
) -> Round:
    """Runs one round. `sizes` holds the orders for each system at saturation.

    The floor is measured at the end of Orderflow's turn.
    """
    async with servers.workspace() as workspace:
        machine = await probe(workspace, CORES)
    played = Round(machine=machine)
    say(f"machine: {machine.python_ms:.0f} ms of Python, {machine.commit_ms:.2f} ms a commit")
    for system in systems:
        async with servers.workspace() as workspace:
            await system.set_up(workspace, logs)
            say(system.name)
            turn = played.turns[system.name] = await _run_turn(
                system, workspace, servers, logs, sizes[system.name], progress
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
                played.floor = await floor(workspace, servers, turn.events_per_message or 1.0)
                say(f"       floor: {played.floor.total:.2f} ms of CPU an order")
    return played


async def _run_turn(
    system: System, workspace: Workspace, servers: Servers, logs: Path, orders: int, progress: Progress
) -> Turn:
    turn = Turn()
    async with running(system, workspace, logs) as alive:
        await measure_closed(alive, workspace, servers, 32, WARM_UP, progress)
        for connections in CONNECTIONS:
            turn.closed[connections] = await measure_closed(
                alive, workspace, servers, connections, orders, progress
            )
            if connections == CONNECTIONS[0] and system.outboxes:
                turn.events_per_message = await events_per_message(workspace, system.outboxes)
        turn.steady = await _measure_low(alive, workspace, servers, STEADY_PER_SECOND, progress)
        turn.quarter_per_second = capacity(turn.steady.cpu_total, CORES) / 4
        turn.quarter = await _measure_low(alive, workspace, servers, turn.quarter_per_second, progress)
    return turn


async def _measure_low(
    alive: Running, workspace: Workspace, servers: Servers, per_second: float, progress: Progress
) -> Measurement:
    orders = max(10, round(LOW_SECONDS * per_second))
    return await measure_open(alive, workspace, servers, per_second, orders, progress)


async def events_per_message(workspace: Workspace, schemas: Sequence[str]) -> float:
    """Returns the mean number of events in a message."""
    connection = await asyncpg.connect(workspace.database_url)
    try:
        outboxes = " UNION ALL ".join(
            f'SELECT cardinality(event_ids) AS events FROM "{schema}".outbox' for schema in schemas
        )
        per_message: float = await connection.fetchval(f"SELECT avg(events)::float8 FROM ({outboxes}) AS m")
    finally:
        await connection.close()
    return per_message

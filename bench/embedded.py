"""Measures `make run`: one process with its own PostgreSQL, events in memory and mails as files."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.measure import measure_closed
from bench.meters import Usage
from bench.rounds import CONNECTIONS, WARM_UP, Progress
from bench.servers import Servers, Workspace
from bench.systems import DidNotStart, System, orderflow, running
from ops.postgres import running_postgres

_NOTHING: Final = Usage(0.0, 0.0)
"""The process's own meter counts its PostgreSQL, a child process. There is no broker."""


def _no_broker(_: Sequence[str]) -> None:
    raise AssertionError("there is no broker to control")


async def measure_embedded(logs: Path, orders: int, progress: Progress) -> dict[str, Any]:
    """Measures throughput and CPU at the same numbers of connections as the rounds."""
    state = logs / "embedded"
    as_processes = orderflow()
    system = System(
        name="Orderflow in one process",
        python=Path(sys.executable),
        setup=(),
        services={"order": ("-m", "ops.main", "run")},
        environment=lambda workspace, service: {"STATE": str(state)},  # it starts its own database
        tables=as_processes.tables,
        tuning=as_processes.tuning,
    )
    nowhere = Workspace("", "")
    seen = {}
    async with running(system, nowhere, logs) as alive:
        url = running_postgres(state / "postgres")
        if url is None:
            raise DidNotStart("The embedded PostgreSQL does not run.")
        workspace = Workspace(url.replace("+asyncpg", ""), "")
        servers = Servers(
            workspace.database_url, "", lambda: _NOTHING, lambda: _NOTHING, _no_broker, "embedded"
        )
        await measure_closed(alive, workspace, servers, 32, WARM_UP, progress)
        for connections in CONNECTIONS:
            seen[connections] = await measure_closed(alive, workspace, servers, connections, orders, progress)
    summary = "; ".join(
        f"{connections} connections: {m.per_second:,.0f} orders/s, {m.cpu_total:.2f} ms of CPU an order"
        for connections, m in seen.items()
    )
    return {"measured": {str(c): m.document() for c, m in seen.items()}, "summary": summary}

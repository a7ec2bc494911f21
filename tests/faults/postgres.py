"""Faults of PostgreSQL, made with its own commands."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from tests.faults.cluster import Cluster
from tests.faults.containers import DATABASE
from tests.faults.fault import NoEffect

PATIENCE: Final = 20.0
_STARTED: Final = "SELECT pg_postmaster_start_time() AS at"
_IS_SERVICE: Final = f"usename LIKE '{DATABASE}\\_%'"


@dataclass(frozen=True)
class Terminated:
    """The server terminates some of the services' connections (57P01)."""

    share: float

    @property
    def name(self) -> str:
        return f"PostgreSQL: {self.share:.0%} of the connections terminated"

    async def strike(self, cluster: Cluster) -> str:
        [record] = await cluster.fetch(
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) AS n"
            f" FROM pg_stat_activity WHERE {_IS_SERVICE} AND random() < $1",
            self.share,
        )
        if not record["n"]:
            raise NoEffect("There was no connection to terminate.")
        return f"{record['n']} connections were terminated"

    async def heal(self, cluster: Cluster) -> None:
        """Nothing is left broken."""


@dataclass(frozen=True)
class Restarted:
    """The server is stopped or killed, and started again with its data."""

    by_kill: bool

    @property
    def name(self) -> str:
        return f"PostgreSQL {'killed' if self.by_kill else 'restarted'}"

    async def strike(self, cluster: Cluster) -> str:
        [before] = await cluster.fetch(_STARTED)
        await (cluster.postgres.kill() if self.by_kill else cluster.postgres.stop())
        await cluster.postgres.start()
        [after] = await cluster.fetch(_STARTED)
        if after["at"] == before["at"]:
            raise NoEffect("The server was not restarted.")
        return f"the server of {before['at']:%H:%M:%S} ended, another started at {after['at']:%H:%M:%S}"

    async def heal(self, cluster: Cluster) -> None:
        await cluster.postgres.start()


@dataclass(frozen=True)
class Setting:
    """For some time the server has another setting for every session."""

    setting: str
    value: str
    error: str
    """The text that services then log."""
    seconds: float

    @property
    def name(self) -> str:
        return f"PostgreSQL: {self.setting} is {self.value}"

    async def strike(self, cluster: Cluster) -> str:
        logs = cluster.logs_from_now()
        await self._set(cluster, f"ALTER SYSTEM SET {self.setting} = '{self.value}'")
        try:
            async with asyncio.timeout(PATIENCE):
                while not (lines := logs.lines_with(self.error)):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise NoEffect(f"No service logged: {self.error}.") from None
        await asyncio.sleep(self.seconds)
        return f"services logged: {self.error} ({len(lines)} times)"

    async def heal(self, cluster: Cluster) -> None:
        await self._set(cluster, f"ALTER SYSTEM RESET {self.setting}")

    async def _set(self, cluster: Cluster, statement: str) -> None:
        await cluster.fetch(statement)
        await cluster.fetch("SELECT pg_reload_conf()")


def read_only(seconds: float) -> Setting:
    """The server refuses writes (25006), as a replica does after a failover."""
    return Setting("default_transaction_read_only", "on", "read-only transaction", seconds)


def serializable(seconds: float) -> Setting:
    """Conflicting transactions are rolled back (40001)."""
    return Setting("default_transaction_isolation", "serializable", "could not serialize access", seconds)


@dataclass(frozen=True)
class TooManyConnections:
    """A service loses its connections and can't open new ones (53300)."""

    service: str
    seconds: float

    @property
    def name(self) -> str:
        return f"PostgreSQL: no connection left for {self.service}"

    async def strike(self, cluster: Cluster) -> str:
        role = cluster.role(self.service)
        logs = cluster.logs_from_now()
        await cluster.fetch(f'ALTER ROLE "{role}" CONNECTION LIMIT 0')
        await cluster.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
        await asyncio.sleep(self.seconds)
        refused = logs.lines_with("too many connections for role")
        if not refused:
            raise NoEffect("No connection was refused.")
        return f"connections were refused {len(refused)} times"

    async def heal(self, cluster: Cluster) -> None:
        await cluster.fetch(f'ALTER ROLE "{cluster.role(self.service)}" CONNECTION LIMIT -1')


@dataclass(frozen=True)
class Locked:
    """Another session locks a table for longer than services wait for a lock (55P03)."""

    table: str
    seconds: float

    @property
    def name(self) -> str:
        return f"PostgreSQL: {self.table} locked for {self.seconds:.0f} s"

    async def strike(self, cluster: Cluster) -> str:
        try:
            holder = await cluster.connect()
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            raise NoEffect(f"The server does not answer: {error}") from error
        try:
            return await self._hold(holder)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise NoEffect(f"The lock was lost: {error}") from error
        finally:
            holder.terminate()

    async def heal(self, cluster: Cluster) -> None:
        """The lock went with its connection."""

    async def _hold(self, holder: "asyncpg.Connection[Any]") -> str:
        most = 0
        async with holder.transaction():
            await holder.execute(f"LOCK TABLE {self.table} IN ACCESS EXCLUSIVE MODE")
            for _ in range(int(self.seconds * 4)):
                await asyncio.sleep(0.25)
                waiting = await holder.fetchval(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
                )
                most = max(most, waiting)
        if not most:
            raise NoEffect("No connection waited for the lock.")
        return f"{most} connections waited for the lock"

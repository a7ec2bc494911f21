"""Faults of PostgreSQL, made by its own means."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from tests.faults.cluster import Cluster
from tests.faults.containers import DATABASE
from tests.faults.fault import NoEffect

PATIENCE: Final = 20.0
_STARTED: Final = "SELECT pg_postmaster_start_time() AS at"
_OF_SERVICES: Final = f"usename LIKE '{DATABASE}\\_%'"


@dataclass(frozen=True)
class Terminated:
    """Some of the services' connections are ended by the server (57P01)."""

    share: float

    @property
    def name(self) -> str:
        return f"PostgreSQL: {self.share:.0%} of the connections terminated"

    async def strike(self, cluster: Cluster) -> str:
        [record] = await cluster.fetch(
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) AS n"
            f" FROM pg_stat_activity WHERE {_OF_SERVICES} AND random() < $1",
            self.share,
        )
        if not record["n"]:
            raise NoEffect("There was no connection to terminate.")
        return f"{record['n']} connections were terminated"

    async def heal(self, cluster: Cluster) -> None:
        """Nothing is left broken."""


@dataclass(frozen=True)
class Restarted:
    """The server ends, in order or by SIGKILL, and comes back on its data."""

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
            raise NoEffect("The server is the same.")
        return f"the server of {before['at']:%H:%M:%S} ended, another started at {after['at']:%H:%M:%S}"

    async def heal(self, cluster: Cluster) -> None:
        await cluster.postgres.start()


@dataclass(frozen=True)
class Setting:
    """For a while the server has another setting, for every session."""

    setting: str
    value: str
    complaint: str
    """What services then say in their logs."""
    seconds: float

    @property
    def name(self) -> str:
        return f"PostgreSQL: {self.setting} is {self.value}"

    async def strike(self, cluster: Cluster) -> str:
        logs = cluster.logs_from_now()
        await self._set(cluster, f"ALTER SYSTEM SET {self.setting} = '{self.value}'")
        try:
            async with asyncio.timeout(PATIENCE):
                while not (said := logs.lines_with(self.complaint)):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise NoEffect(f"No service was told: {self.complaint}.") from None
        await asyncio.sleep(self.seconds)
        return f"services were told: {self.complaint} ({len(said)} times)"

    async def heal(self, cluster: Cluster) -> None:
        await self._set(cluster, f"ALTER SYSTEM RESET {self.setting}")

    async def _set(self, cluster: Cluster, statement: str) -> None:
        await cluster.fetch(statement)
        await cluster.fetch("SELECT pg_reload_conf()")


def read_only(seconds: float) -> Setting:
    """The server takes no changes (25006), as a replica does after a failover."""
    return Setting("default_transaction_read_only", "on", "read-only transaction", seconds)


def serializable(seconds: float) -> Setting:
    """Transactions that meet are rolled back (40001)."""
    return Setting("default_transaction_isolation", "serializable", "could not serialize access", seconds)


@dataclass(frozen=True)
class TooManyConnections:
    """A service that loses its connections can't open as many as it had (53300)."""

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
        said = logs.lines_with("too many connections for role")
        if not said:
            raise NoEffect("Nobody was refused a connection.")
        return f"connections were refused {len(said)} times"

    async def heal(self, cluster: Cluster) -> None:
        await cluster.fetch(f'ALTER ROLE "{cluster.role(self.service)}" CONNECTION LIMIT -1')


@dataclass(frozen=True)
class Locked:
    """Somebody else holds a lock on a table that everyone needs, for longer than services wait (55P03)."""

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
            raise NoEffect("Nobody waited for the lock.")
        return f"{most} connections waited for the lock"

"""The embedded PostgreSQL: a private server on a folder, for running everything with nothing installed.

Its programs come from a wheel, it listens on a unix socket only, and it stops when `embedded_postgres` ends.
"""

from ops.postgres.errors import (
    BinariesMissing,
    DataUnusable,
    FolderNotOurs,
    NothingRuns,
    PostgresUnavailable,
    ServerDied,
    ServerFailed,
    ServerNotStopped,
)
from ops.postgres.server import embedded_postgres, running_postgres
from ops.postgres.survivors import stop_survivor

__all__ = [
    "BinariesMissing",
    "DataUnusable",
    "FolderNotOurs",
    "NothingRuns",
    "PostgresUnavailable",
    "ServerDied",
    "ServerFailed",
    "ServerNotStopped",
    "embedded_postgres",
    "running_postgres",
    "stop_survivor",
]

"""The embedded PostgreSQL: a private server on a folder, so that nothing has to be installed.

Its programs come from a wheel. It listens on a unix socket only, and stops when `embedded_postgres` ends.
"""

from ops.postgres.orphans import stop_orphan
from ops.postgres.server import embedded_postgres, running_postgres

__all__ = ["embedded_postgres", "running_postgres", "stop_orphan"]

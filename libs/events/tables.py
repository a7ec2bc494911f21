"""The tables that every service has in its own schema for its part in the events.

No table names a schema: each service's role has its own schema, and nothing else, on its search path.
"""

from typing import Final

from sqlalchemy import MetaData

METADATA: Final = MetaData()

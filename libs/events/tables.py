"""The tables of `events`, which every service has in its own schema.

No table names a schema: the search path of a service's role is its own schema and nothing else.
"""

from typing import Final

from sqlalchemy import MetaData

METADATA: Final = MetaData()

"""The peers: the same business, built three times with the usual tools as their documentation teaches.

`python -m bench.peers.<peer> setup` creates tables and the broker's topology. The arguments `order`,
`invoice`, `billing`, `shipment` and `email` run one service. They read DATABASE_URL and BROKER_URL, and
`order` reads PORT. The peers have a Python environment of their own, `bench/peers/.venv`, made from
`requirements.lock`.
"""

from pathlib import Path
from typing import Final

SCHEMA: Final = Path(__file__).parent / "schema.sql"
"""The tables of all peers."""

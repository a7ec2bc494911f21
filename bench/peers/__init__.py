"""The peers: the same business, built three times with the usual tools, as their documentation teaches.

Each runs one of its commands: `python -m bench.peers.<peer> setup`, which makes the tables and the broker's
topology, or one service: `order`, `invoice`, `billing`, `shipment`, `email`. DATABASE_URL and BROKER_URL say
where, and PORT for `order`. They have an environment of their own, `bench/peers/.venv`, made from
`requirements.lock`.
"""

from pathlib import Path
from typing import Final

SCHEMA: Final = Path(__file__).parent / "schema.sql"
"""The tables of all of them."""

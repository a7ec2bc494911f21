"""The engine, and the sessions."""

import os
from typing import Final

from sqlalchemy import create_engine, make_url
from sqlalchemy.orm import sessionmaker

from bench.peers.celery_sqlalchemy import TUNING

engine: Final = create_engine(
    make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg"),
    pool_size=TUNING["pool"],
    max_overflow=0,
)
sessions: Final = sessionmaker(engine, expire_on_commit=False)

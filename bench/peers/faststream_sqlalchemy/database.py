"""The engine, and a session per request or message."""

import os
from collections.abc import AsyncIterator
from typing import Final

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from bench.peers.faststream_sqlalchemy import TUNING

engine: Final = create_async_engine(
    make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+asyncpg"),
    pool_size=TUNING["pool"],
    max_overflow=0,
)
sessions: Final = async_sessionmaker(engine, expire_on_commit=False)


async def get_session() -> AsyncIterator[AsyncSession]:
    """Opens a session. The caller commits."""
    async with sessions() as session:
        yield session

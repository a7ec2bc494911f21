"""A link: one connection with one channel to the broker, reopened whenever it is lost."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import aio_pika
from aio_pika import Connection
from aio_pika.abc import AbstractChannel as Channel

from events.backoff import backoff
from events.errors import BrokerUnavailable, EventsError

OPERATION_SECONDS: Final = 10.0
"""Time limit of a request. Without one it would wait for ever when the broker is gone."""
HEARTBEAT_SECONDS: Final = 8
"""A silent connection is closed after three of these and three seconds."""
CLOSE_SECONDS: Final = 3.0

logger = logging.getLogger(__name__)


@contextmanager
def errors_as(error: type[EventsError]) -> Iterator[None]:
    """Raises `error` for any exception of aio-pika.

    When a connection ends, aio-pika may raise any exception, even CancelledError. That one is translated
    only if this task was not really cancelled.
    """
    try:
        yield
    except asyncio.CancelledError as lost:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise error(f"{error.__doc__} (connection lost)") from lost
    except EventsError:
        raise
    except Exception as lost:
        raise error(f"{error.__doc__} ({_sentence(lost)})") from lost


@asynccontextmanager
async def opened(url: str, name: str) -> AsyncIterator[Channel]:
    """Opens one connection with one channel. Raises BrokerUnavailable.

    At the end the channel is closed first, so that pending acknowledgements reach the broker.
    """
    with errors_as(BrokerUnavailable):
        async with asyncio.timeout(OPERATION_SECONDS):
            connection = await aio_pika.connect(_with_defaults(url, name))
    try:
        with errors_as(BrokerUnavailable):
            channel = connection.channel(publisher_confirms=True, on_return_raises=True)
            await channel.initialize(timeout=OPERATION_SECONDS)
        try:
            yield channel
        finally:
            await _close(channel)
    finally:
        await _close(connection)


class Link:
    """Keeps one channel open while `run` runs.

    `prepare` is called with each new channel, `check` every `check_seconds` after that. When either fails,
    connection and channel are reopened.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        prepare: Callable[[Channel], Awaitable[None]],
        check: Callable[[Channel], Awaitable[None]],
        check_seconds: float,
    ) -> None:
        self.name = name
        self._url = url
        self._prepare = prepare
        self._check = check
        self._check_seconds = check_seconds
        self._channel: Channel | None = None
        self._error = ""
        self._attempted = asyncio.Event()
        """Set while connected, and after a failed attempt."""
        self._reopen = asyncio.Event()

    async def run(self) -> None:
        """Keeps the channel open until cancelled."""
        tries = 0
        while True:
            try:
                async with opened(self._url, self.name) as channel:
                    with errors_as(BrokerUnavailable):
                        async with asyncio.timeout(OPERATION_SECONDS):
                            await self._prepare(channel)
                    if tries:
                        logger.info("%s: connected again", self.name)
                    tries = 0
                    self._opened(channel)
                    await self._keep(channel)
            except EventsError as error:
                self._failed(error)
            finally:
                self._channel = None
            await asyncio.sleep(backoff(tries, first=0.2, most=5.0))
            tries += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs until the context ends."""
        task = asyncio.create_task(self.run(), name=self.name)
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def channel(self) -> Channel:
        """Waits for a running attempt, and returns the channel. Raises BrokerUnavailable without one."""
        await self._attempted.wait()
        if self._channel is None:
            raise BrokerUnavailable(f"{BrokerUnavailable.__doc__} {self._error}")
        return self._channel

    def reopen(self, channel: Channel) -> None:
        """Closes the channel and opens a new one."""
        if channel is self._channel:
            self._reopen.set()

    async def _keep(self, channel: Channel) -> None:
        """Returns when the channel is lost or `reopen` was called."""
        closing = (await channel.get_underlay_channel()).closing
        reopen = asyncio.ensure_future(self._reopen.wait())
        try:
            while True:
                await asyncio.wait(
                    {closing, reopen}, timeout=self._check_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                if closing.done() or reopen.done():
                    break
                with errors_as(BrokerUnavailable):
                    async with asyncio.timeout(OPERATION_SECONDS):
                        await self._check(channel)
        finally:
            reopen.cancel()
            self._attempted.clear()
            self._channel = None
        if closing.done() and not closing.cancelled():
            logger.warning("%s: connection lost: %s", self.name, _sentence(closing.exception()))

    def _opened(self, channel: Channel) -> None:
        self._reopen.clear()
        self._error = ""
        self._channel = channel
        self._attempted.set()

    def _failed(self, error: EventsError) -> None:
        if str(error) != self._error:
            logger.warning("%s: %s", self.name, error)
        self._error = str(error)
        self._attempted.set()


def _with_defaults(url: str, name: str) -> str:
    """The URL with default values for the heartbeat and the connection's name."""
    parts = urlsplit(url)
    query = {"heartbeat": str(HEARTBEAT_SECONDS), "name": name, **dict(parse_qsl(parts.query))}
    return urlunsplit(parts._replace(query=urlencode(query)))


async def _close(closable: Channel | Connection) -> None:
    with suppress(BrokerUnavailable), errors_as(BrokerUnavailable):  # it is closed already
        async with asyncio.timeout(CLOSE_SECONDS):
            await closable.close()


def _sentence(error: BaseException | None) -> str:
    return str(error) or repr(error)

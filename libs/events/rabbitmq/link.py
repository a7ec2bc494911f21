"""A link: one connection to the broker with one channel, made again whenever it is lost."""

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
"""Deadline of what is asked of the broker: a request waits for ever when the other side is gone."""
HEARTBEAT_SECONDS: Final = 8
"""A silent connection is given up after three of them and three seconds."""
CLOSE_SECONDS: Final = 3.0

logger = logging.getLogger(__name__)


@contextmanager
def errors_as(error: type[EventsError]) -> Iterator[None]:
    """Raises `error` for whatever aio-pika raises, which may be anything when a connection ends.

    Also a bare Exception, and CancelledError; but a task that nobody has cancelled is not cancelled.
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
    """One connection with one channel. Raises BrokerUnavailable.

    At the end the channel is closed first, so that acknowledgements still on their way reach the broker.
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

    `prepare` makes a new channel fit for use; `check` is done every `check_seconds` while it is. When either
    fails, everything is opened anew.
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
        """Set while it is known how things stand: connected, or the last attempt failed."""
        self._given_up = asyncio.Event()

    async def run(self) -> None:
        """Connects, and connects again, until cancelled."""
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
                    self._stands(channel)
                    await self._keep(channel)
            except EventsError as error:
                self._failed(error)
            finally:
                self._channel = None
            await asyncio.sleep(backoff(tries, first=0.2, most=5.0))
            tries += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs while the context is open."""
        task = asyncio.create_task(self.run(), name=self.name)
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def channel(self) -> Channel:
        """The open channel. Waits for an attempt that is under way; raises BrokerUnavailable if it failed."""
        await self._attempted.wait()
        if self._channel is None:
            raise BrokerUnavailable(f"{BrokerUnavailable.__doc__} {self._error}")
        return self._channel

    def give_up(self, channel: Channel) -> None:
        """The channel is of no use any more: everything is opened anew."""
        if channel is self._channel:
            self._given_up.set()

    async def _keep(self, channel: Channel) -> None:
        """Returns when the channel is lost or given up."""
        closing = (await channel.get_underlay_channel()).closing
        given_up = asyncio.ensure_future(self._given_up.wait())
        try:
            while True:
                await asyncio.wait(
                    {closing, given_up}, timeout=self._check_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                if closing.done() or given_up.done():
                    break
                with errors_as(BrokerUnavailable):
                    async with asyncio.timeout(OPERATION_SECONDS):
                        await self._check(channel)
        finally:
            given_up.cancel()
            self._attempted.clear()
            self._channel = None
        if closing.done() and not closing.cancelled():
            logger.warning("%s: connection lost: %s", self.name, _sentence(closing.exception()))

    def _stands(self, channel: Channel) -> None:
        self._given_up.clear()
        self._error = ""
        self._channel = channel
        self._attempted.set()

    def _failed(self, error: EventsError) -> None:
        if str(error) != self._error:
            logger.warning("%s: %s", self.name, error)
        self._error = str(error)
        self._attempted.set()


def _with_defaults(url: str, name: str) -> str:
    """The URL with a heartbeat and a name for the connection, where it does not say otherwise itself."""
    parts = urlsplit(url)
    query = {"heartbeat": str(HEARTBEAT_SECONDS), "name": name, **dict(parse_qsl(parts.query))}
    return urlunsplit(parts._replace(query=urlencode(query)))


async def _close(closable: Channel | Connection) -> None:
    with suppress(BrokerUnavailable), errors_as(BrokerUnavailable):  # it is gone already
        async with asyncio.timeout(CLOSE_SECONDS):
            await closable.close()


def _sentence(error: BaseException | None) -> str:
    return str(error) or repr(error)

"""A service as a Lambda function: `handler = Function(SERVICE)`.

It is put together at the container's first invocation and stays so. Between two invocations the container is
frozen, so nothing may be under way then: every invocation ends what it has begun.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import uvloop

from chassis.service import OpenService, Service, open_service
from chassis.settings import ServiceSettings, Settings, UnusableSettings, read
from chassis.telemetry import configure_logging
from events.aws import secrets
from events.aws.bus import AWSBus
from events.aws.invocations import Invocations, is_from_queue, is_scheduled

if TYPE_CHECKING:
    from mangum import Mangum
    from starlette.types import ASGIApp, Receive, Scope, Send

START_SECONDS: Final = 10.0
"""How long the database and its schema may be waited for at the first invocation; then that fails."""
FINISH_SECONDS: Final = 1.0
"""How long what nobody waits for any more may take to end by itself, after an invocation's work."""
TEXT: Final = ["text/", "application/json", "application/problem+json"]
"""What is answered as it is. Anything else goes to API Gateway in base64."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


class FunctionSettings(Settings):
    """Where a function's events go."""

    topic_arn: str
    """The topic `OrderEvents`."""
    dead_letter_queue_url: str
    """Where the service keeps what can't be decoded."""


class Context(Protocol):
    """What Lambda says of an invocation."""

    def get_remaining_time_in_millis(self) -> int:
        """Until the container is stopped."""
        ...


class Function:
    """One service's handler, for whatever Lambda asks of it, told apart by the event's shape.

    - messages of its queue: handled; those to come again are reported
      (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html)
    - its schedule: what is left over is done
    - anything else: a request to its API, from API Gateway's REST (v1) or HTTP API (v2)

    An invocation fails when the service can't be put together; the next one tries again. Settings that can't
    be used end the container with a sentence.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._resources = AsyncExitStack()
        self._running: OpenService | None = None
        self._invocations: Invocations | None = None

    def __call__(self, event: Mapping[str, Any], context: Context) -> Any:
        """Handles one event; returns what Lambda is to be told."""
        ends = time.monotonic() + context.get_remaining_time_in_millis() / 1000

        def left() -> float:
            return ends - time.monotonic()

        if self._invocations is None:
            self._invocations = self._run(self._open_service(*self._settings()))
        if is_from_queue(event):
            return self._run(self._invocations.consume(event, left()))
        if is_scheduled(event):
            return self._run(self._invocations.sweep(left()))
        try:
            return self._api(left)(dict(event), context)  # type: ignore[arg-type]  # it asks for more than it needs
        finally:
            self._run(_finish_tasks())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result, once nothing is under way any more."""

        async def landed() -> T:
            try:
                return await work
            finally:
                await _finish_tasks()

        return self._loop.run_until_complete(landed())

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        return loop

    def _settings(self) -> tuple[ServiceSettings, FunctionSettings]:
        os.environ.update(secrets.resolve(os.environ))
        try:
            return read(self._service.settings), read(FunctionSettings)
        except UnusableSettings as unusable:
            sys.exit(str(unusable))

    async def _open_service(self, settings: ServiceSettings, to: FunctionSettings) -> Invocations:
        configure_logging(self._service.name, settings)
        async with AsyncExitStack() as stack:
            bus = AWSBus(to.topic_arn, prefix="", dead_letters=to.dead_letter_queue_url)
            await stack.enter_async_context(bus)
            async with asyncio.timeout(START_SECONDS):
                self._running = await stack.enter_async_context(open_service(self._service, settings, bus))
            self._resources = stack.pop_all()
        return Invocations(self._running.participant, bus)

    def _api(self, left: Callable[[], float]) -> "Mangum":
        from mangum import Mangum  # noqa: PLC0415  # most functions have no API

        assert self._invocations
        invocations, application = self._invocations, self._application

        async def answer(scope: "Scope", receive: "Receive", send: "Send") -> None:
            await invocations.answer(application(scope, receive, send), left())

        return Mangum(answer, lifespan="off", text_mime_types=TEXT)

    @cached_property
    def _application(self) -> "ASGIApp":
        from chassis.application import application  # noqa: PLC0415  # most functions have no API

        assert self._running
        return application([self._running])


async def _finish_tasks() -> None:
    """Returns when nothing is under way but this: what does not end by itself is broken off."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, late = await asyncio.wait(others, timeout=FINISH_SECONDS)
        for task in late:
            logger.warning("%s is broken off", task.get_name())
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

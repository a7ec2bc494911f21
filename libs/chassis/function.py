"""A service as a Lambda function: `handler = Function(SERVICE)`.

The service is opened at the container's first invocation and stays open. Between two invocations the
container is frozen, so every invocation finishes all tasks that it began.
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
"""The first invocation fails if the database and its schema are not there within this time."""
FINISH_SECONDS: Final = 1.0
"""How long remaining tasks may take after an invocation's work. Then they are cancelled."""
TEXT: Final = ["text/", "application/json", "application/problem+json"]
"""Media types that are answered as text. Others go to API Gateway in base64."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


class FunctionSettings(Settings):
    """A function's topic and queue."""

    topic_arn: str
    """The topic `OrderEvents`."""
    dead_letter_queue_url: str
    """Of the service; undecodable messages go there."""


class Context(Protocol):
    """The context of an invocation, as Lambda passes it."""

    def get_remaining_time_in_millis(self) -> int:
        """Time until Lambda stops the container."""
        ...


class Function:
    """One service's handler for all its invocations, which differ by the event's shape.

    - messages of its queue: handles them, and reports those to deliver again
      (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html)
    - its schedule: sweeps the tables
    - anything else: a request to its API, from API Gateway's REST (v1) or HTTP API (v2)

    An invocation fails if the service can't be opened; the next one tries again. Unusable settings end the
    container with a sentence.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._resources = AsyncExitStack()
        self._opened: OpenService | None = None
        self._invocations: Invocations | None = None

    def __call__(self, event: Mapping[str, Any], context: Context) -> Any:
        """Handles one event, and returns the answer for Lambda."""
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
            return self._api(left)(dict(event), context)  # type: ignore[arg-type]  # its type asks for more than it uses
        finally:
            self._run(_finish_tasks())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs the work and finishes all tasks, and returns the result."""

        async def finished() -> T:
            try:
                return await work
            finally:
                await _finish_tasks()

        return self._loop.run_until_complete(finished())

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
                self._opened = await stack.enter_async_context(open_service(self._service, settings, bus))
            self._resources = stack.pop_all()
        return Invocations(self._opened.participant, bus)

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

        assert self._opened
        return application([self._opened])


async def _finish_tasks() -> None:
    """Returns when all other tasks have ended. Cancels those that take too long."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, late = await asyncio.wait(others, timeout=FINISH_SECONDS)
        for task in late:
            logger.warning("%s is cancelled: the invocation ends", task.get_name())
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

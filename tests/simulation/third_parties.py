"""The third parties: payment provider, carrier and mail server. Any of them may not answer."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from events.errors import Unavailable, UnknownOutcome
from services.billing.provider import ChargeAnswer, ChargeRequest, Provider, RefundAnswer, RefundRequest
from services.email.domain import Outcome
from services.email.mailer import MailPerhapsSent, MailServerUnavailable, RenderedMail
from services.shipment.carrier import BookingAnswer, Carrier, Label
from tests.simulation.endings import CALL, Ending
from tests.simulation.scheduler import Scheduler

T = TypeVar("T")


class ThirdPartyCalls:
    """Calls to third parties: each is one step, or never ends."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.late: list[asyncio.Task[Any]] = []

    async def call(
        self,
        what: str,
        do: Callable[[], Awaitable[T]],
        unavailable: type[Unavailable] = Unavailable,
        unknown: type[UnknownOutcome] = UnknownOutcome,
    ) -> T:
        """Returns the answer of `do`, if the call and its answer arrive."""
        async with self._scheduler.step(what, CALL) as step:
            match step.ending:
                case Ending.REFUSED:
                    raise unavailable
                case Ending.LOST:
                    raise unknown
                case Ending.ANSWER_LOST:
                    await do()
                    raise unknown
                case Ending.SILENT | Ending.LATE:
                    pass
                case _:
                    return await do()
        if step.ending is Ending.LATE:
            self.late.append(asyncio.get_running_loop().create_task(self._later(what, do)))
        never: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        return await never  # until the caller's deadline

    async def _later(self, what: str, do: Callable[[], Awaitable[object]]) -> None:
        async with self._scheduler.step(f"{what}, late"):
            await do()


class SteppedProvider:
    """A payment provider whose calls are steps."""

    def __init__(self, provider: Provider, calls: ThirdPartyCalls) -> None:
        self.name = provider.name
        self._provider = provider
        self._calls = calls

    async def charge(self, request: ChargeRequest) -> ChargeAnswer:
        """See Provider."""
        return await self._calls.call("charge", lambda: self._provider.charge(request))

    async def look_up_charge(self, request: ChargeRequest) -> ChargeAnswer:
        """See Provider."""
        return await self._calls.call("look up a charge", lambda: self._provider.look_up_charge(request))

    async def refund(self, request: RefundRequest) -> RefundAnswer:
        """See Provider."""
        return await self._calls.call("refund", lambda: self._provider.refund(request))

    async def look_up_refund(self, request: RefundRequest) -> RefundAnswer:
        """See Provider."""
        return await self._calls.call("look up a refund", lambda: self._provider.look_up_refund(request))


class SteppedCarrier:
    """A carrier whose calls are steps."""

    def __init__(self, carrier: Carrier, calls: ThirdPartyCalls) -> None:
        self.name = carrier.name
        self._carrier = carrier
        self._calls = calls

    async def book(self, key: str, label: Label) -> BookingAnswer:
        """See Carrier."""
        return await self._calls.call("book", lambda: self._carrier.book(key, label))


class Mailbox:
    """A mail server that counts its mails."""

    def __init__(self, calls: ThirdPartyCalls) -> None:
        self._calls = calls
        self.copies: Counter[tuple[str, str, bytes]] = Counter()
        """How often each mail arrived, by name, recipient and content."""

    async def send(self, mail: RenderedMail) -> Outcome:
        """See Mailer."""

        async def accept() -> Outcome:
            self.copies[mail.name, mail.recipient, mail.content] += 1
            return Outcome("sent", "250 OK")

        return await self._calls.call("mail", accept, MailServerUnavailable, MailPerhapsSent)

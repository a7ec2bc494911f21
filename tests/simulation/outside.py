"""Those outside: payment provider, carrier and mail server, each of whom may not answer."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from events.contracts import Address
from events.errors import Unavailable, UnknownOutcome
from services.billing.provider import ChargeAnswer, ChargeRequest, Provider, RefundAnswer, RefundRequest
from services.email.domain import Outcome
from services.email.mailer import MailPerhapsSent, MailServerUnavailable, RenderedMail
from services.shipment.carrier import BookingAnswer, Carrier
from tests.simulation.fates import ASK, Fate
from tests.simulation.scheduler import Scheduler

T = TypeVar("T")


class Outside:
    """The way to them: a call is one step, or never comes to its end."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.late: list[asyncio.Task[Any]] = []

    async def ask(
        self,
        what: str,
        do: Callable[[], Awaitable[T]],
        unavailable: type[Unavailable] = Unavailable,
        unknown: type[UnknownOutcome] = UnknownOutcome,
    ) -> T:
        """What `do` answers, if it is asked and its answer arrives."""
        async with self._scheduler.step(what, ASK) as step:
            match step.fate:
                case Fate.REFUSED:
                    raise unavailable
                case Fate.LOST:
                    raise unknown
                case Fate.ANSWER_LOST:
                    await do()
                    raise unknown
                case Fate.SILENT | Fate.LATE:
                    pass
                case _:
                    return await do()
        if step.fate is Fate.LATE:
            self.late.append(asyncio.get_running_loop().create_task(self._later(what, do)))
        never: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        return await never  # until the caller's own deadline

    async def _later(self, what: str, do: Callable[[], Awaitable[object]]) -> None:
        async with self._scheduler.step(f"{what}, late"):
            await do()


class AskedProvider:
    """A payment provider, asked in steps."""

    def __init__(self, provider: Provider, outside: Outside) -> None:
        self.name = provider.name
        self._provider = provider
        self._outside = outside

    async def charge(self, request: ChargeRequest) -> ChargeAnswer:
        """See Provider."""
        return await self._outside.ask("charge", lambda: self._provider.charge(request))

    async def look_up_charge(self, request: ChargeRequest) -> ChargeAnswer:
        """See Provider."""
        return await self._outside.ask("look up a charge", lambda: self._provider.look_up_charge(request))

    async def refund(self, request: RefundRequest) -> RefundAnswer:
        """See Provider."""
        return await self._outside.ask("refund", lambda: self._provider.refund(request))

    async def look_up_refund(self, request: RefundRequest) -> RefundAnswer:
        """See Provider."""
        return await self._outside.ask("look up a refund", lambda: self._provider.look_up_refund(request))


class AskedCarrier:
    """A carrier, asked in steps."""

    def __init__(self, carrier: Carrier, outside: Outside) -> None:
        self.name = carrier.name
        self._carrier = carrier
        self._outside = outside

    async def book(self, key: str, address: Address) -> BookingAnswer:
        """See Carrier."""
        return await self._outside.ask("book", lambda: self._carrier.book(key, address))


class Mailbox:
    """A mail server that keeps what it gets."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self.copies: Counter[tuple[str, str, bytes]] = Counter()
        """How often each mail came, by its name, its recipient and its content."""

    async def send(self, mail: RenderedMail) -> Outcome:
        """See Mailer."""

        async def keep() -> Outcome:
            self.copies[mail.name, mail.recipient, mail.content] += 1
            return Outcome("sent", "250 OK")

        return await self._outside.ask("mail", keep, MailServerUnavailable, MailPerhapsSent)

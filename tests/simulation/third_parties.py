"""The third parties: payment provider, carrier and mail server. Any of them may not answer."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from events.contracts import Address
from events.errors import Unavailable, UnknownOutcome
from services.billing.provider import Charge, ChargeAnswer, Provider, Repayment, RepaymentAnswer
from services.email.domain import Outcome
from services.email.mailer import Letter, MailPerhapsSent, MailServerUnavailable
from services.shipment.carrier import DestinationUnserved, SimulatedCarrier
from services.shipment.domain import Booking
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

    async def charge(self, charge: Charge) -> ChargeAnswer:
        """See Provider."""
        return await self._calls.call("charge", lambda: self._provider.charge(charge))

    async def look_up(self, charge: Charge) -> ChargeAnswer:
        """See Provider."""
        return await self._calls.call("look up a charge", lambda: self._provider.look_up(charge))

    async def repay(self, repayment: Repayment) -> RepaymentAnswer:
        """See Provider."""
        return await self._calls.call("repay", lambda: self._provider.repay(repayment))

    async def look_up_repayment(self, repayment: Repayment) -> RepaymentAnswer:
        """See Provider."""
        return await self._calls.call(
            "look up a repayment", lambda: self._provider.look_up_repayment(repayment)
        )


class SteppedCarrier(SimulatedCarrier):
    """A carrier whose calls are steps."""

    calls: ThirdPartyCalls

    async def book(self, key: str, address: Address) -> Booking:
        """See SimulatedCarrier."""
        book = super().book

        async def answer() -> Booking | DestinationUnserved:
            try:
                return await book(key, address)
            except DestinationUnserved as refusal:
                return refusal

        booking = await self.calls.call("book", answer)
        if isinstance(booking, DestinationUnserved):
            raise booking
        return booking


class Mailbox:
    """A mail server that counts its mails."""

    def __init__(self, calls: ThirdPartyCalls) -> None:
        self._calls = calls
        self.copies: Counter[tuple[str, str, bytes]] = Counter()
        """How often each mail arrived, by name, recipient and content."""

    async def send(self, letter: Letter) -> Outcome:
        """See Mailer."""

        async def accept() -> Outcome:
            self.copies[letter.name, letter.recipient, letter.content] += 1
            return Outcome("sent", "250 OK")

        return await self._calls.call("mail", accept, MailServerUnavailable, MailPerhapsSent)

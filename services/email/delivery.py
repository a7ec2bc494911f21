"""The delivery of mails: the letter is written, handed to the mailer, and its outcome recorded."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from events.progress import Step
from events.retry import RetryPolicy
from events.runner import Runner
from events.transaction import Transaction
from events.transactions import Transactions
from services.email import repository
from services.email.domain import Mail, Outcome
from services.email.letters import Letters
from services.email.mailer import Mailer
from services.email.mime import UnusableAddress

MAIL: Final = RetryPolicy(
    deadline=1980,
    first=300,
    longest=7200,
    unknowns=3,
    patience=timedelta(days=5),
    expired="refused",
)
"""Retries as RFC 5321, 4.5.4.1 has them: minutes apart, then hours, and an end after "at least 4-5 days".

The deadline is longer than the mail server's own times together (`smtp.RFC_5321`), so a mail that was not
handed over is never taken for one that perhaps was. Each unknown outcome may be a copy that the customer has:
three at most.
"""

SLOW_AFTER: Final = 1.0
"""Seconds after which a mail leaves the ordinary places to others.

It is the longest that so many slow mails as there are places can hold up the others.
"""
SLOW_PLACES: Final = 4
"""Places for slow mails, for each ordinary one."""


async def deliver(mail: Mail, letters: Letters, mailer: Mailer | None) -> Outcome:
    """The mail's definite outcome. Raises what the mailer raises while there is none.

    Without a mailer no letter is written: the record is all that becomes of it.
    """
    if mailer is None:
        return Outcome("sent", "recorded only")
    try:
        letter = letters.write(mail)
    except UnusableAddress as error:
        return Outcome("refused", str(error))
    return await mailer.send(letter)


def delivery(
    transactions: Transactions,
    letters: Letters,
    mailer: Mailer | None,
    *,
    concurrency: int,
    policy: RetryPolicy = MAIL,
    slow_after: float = SLOW_AFTER,
    sweep_seconds: float = 5.0,
) -> Runner[Mail, Outcome]:
    """The runner that delivers what waits in the table of mails."""

    async def perform(mail: Mail) -> Outcome:
        return await deliver(mail, letters, mailer)

    async def settle(tx: Transaction, ended: Sequence[tuple[Mail, Outcome]]) -> None:
        await repository.settle(tx, ended, letters.domain)
        now = datetime.now(UTC)
        tx.log(*(_step(mail, outcome, now) for mail, outcome in ended))

    return Runner(
        "email delivery",
        repository.LEASES,
        transactions,
        perform,
        settle,
        policy=policy,
        subject=lambda mail: mail.recipient,
        concurrency=concurrency,
        slow_after=slow_after,
        slow_lane=SLOW_PLACES * concurrency,
        sweep_seconds=sweep_seconds,
    )


def _step(mail: Mail, outcome: Outcome, now: datetime) -> Step:
    seconds = (now - mail.order.created_at).total_seconds()
    return Step(mail.order.id, f"mail about {mail.stage} {outcome.state}", seconds)

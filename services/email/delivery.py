"""The delivery of mails: the letter is written, handed to the mailer, and its outcome recorded."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from events.commit import Transactions
from events.retry import RetryPolicy
from events.runner import Runner
from events.transaction import Transaction
from services.email import repository
from services.email.domain import Mail, Outcome
from services.email.letters import Letters
from services.email.mailer import Mailer, MailPostponed
from services.email.mime import UnusableAddress

MAIL: Final = RetryPolicy(deadline=10, first=1, longest=30)


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
    try:
        return await mailer.send(letter)
    except MailPostponed as error:
        if mail.has_waited_enough(datetime.now(UTC)):
            return Outcome("refused", f"Given up: {error}")
        raise


def delivery(
    transactions: Transactions,
    letters: Letters,
    mailer: Mailer | None,
    *,
    concurrency: int,
    sweep_seconds: float = 5.0,
) -> Runner[Mail, Outcome]:
    """The runner that delivers what waits in the table of mails."""

    async def perform(mail: Mail) -> Outcome:
        return await deliver(mail, letters, mailer)

    async def settle(tx: Transaction, ended: Sequence[tuple[Mail, Outcome]]) -> None:
        await repository.settle(tx, ended, letters.domain)

    return Runner(
        "email delivery",
        repository.LEASES,
        transactions,
        perform,
        settle,
        policy=MAIL,
        concurrency=concurrency,
        sweep_seconds=sweep_seconds,
    )

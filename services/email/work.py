"""Delivery: renders each pending mail, hands it to the mailer, and records its outcome once."""

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
from services.email.mailer import Mailer
from services.email.mime import UnusableAddress
from services.email.rendering import MailRenderer

MAIL_RETRIES: Final = RetryPolicy(
    deadline=1980,
    first=300,
    longest=7200,
    unknowns=3,
    patience=timedelta(days=5),
    expired="refused",
)
"""As RFC 5321, 4.5.4.1 recommends: pauses of minutes, then hours, and giving up after "at least 4-5 days".

The deadline is longer than all timeouts of one SMTP conversation together (`smtp.server.RFC_5321`), so a mail
that was not handed over never counts as one that perhaps was. Each unknown outcome may have left a copy with
the customer, so three are the limit.
"""

SLOW_AFTER_SECONDS: Final = 1.0
"""Seconds after which a mail moves to a slow place. Slow mails hold up the others for at most this long."""
SLOW_PLACES: Final = 4
"""Slow places for each ordinary place."""


class Delivery:
    """Delivers one mail at a time, and settles many."""

    def __init__(self, renderer: MailRenderer, mailer: Mailer | None) -> None:
        """Without a mailer, mails are recorded as sent and neither rendered nor sent."""
        self._renderer = renderer
        self._mailer = mailer

    async def perform(self, mail: Mail) -> Mail:
        """The mail with its definite outcome. Raises what `Mailer.send` raises."""
        if self._mailer is None:
            return mail.settled(Outcome("sent", "recorded only"))
        try:
            rendered = self._renderer.render(mail)
        except UnusableAddress as error:
            return mail.settled(Outcome("refused", str(error)))
        return mail.settled(await self._mailer.send(rendered))

    async def settle(self, tx: Transaction, performed: Sequence[tuple[Mail, Mail]]) -> None:
        """Stores the outcomes, and logs those that no other process has stored before."""
        changed = await repository.settle(tx, [mail for _, mail in performed], self._renderer.domain)
        now = datetime.now(UTC)
        tx.log(*(_step(mail, now) for mail in changed))


def runner_of_mails(
    renderer: MailRenderer,
    mailer: Mailer | None,
    transactions: Transactions,
    *,
    concurrency: int,
    policy: RetryPolicy = MAIL_RETRIES,
    slow_after_seconds: float = SLOW_AFTER_SECONDS,
    sweep_seconds: float = 5.0,
) -> Runner[Mail, Mail]:
    """The runner that delivers pending mails, at most `concurrency` at a time beside slow ones."""
    delivery = Delivery(renderer, mailer)
    return Runner(
        "email delivery",
        repository.PENDING_MAILS,
        transactions,
        delivery.perform,
        delivery.settle,
        policy=policy,
        subject=lambda mail: mail.recipient,
        concurrency=concurrency,
        slow_after_seconds=slow_after_seconds,
        slow_places=SLOW_PLACES * concurrency,
        sweep_seconds=sweep_seconds,
    )


def _step(mail: Mail, now: datetime) -> Step:
    assert mail.outcome
    seconds = (now - mail.order.created_at).total_seconds()
    return Step(mail.order.id, f"mail about {mail.stage} {mail.outcome.state}", seconds)

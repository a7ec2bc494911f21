"""What an intent may become: the card's part of https://docs.stripe.com/payments/paymentintents/lifecycle.

Plain rules: what goes in is not changed, what comes out is what has to be kept.
"""

from typing import Final, NamedTuple

from msgspec.structs import replace

from sandbox.stripe import cards, currencies
from sandbox.stripe.errors import StripeRefusal, declined, invalid, missing, unexpected_state
from sandbox.stripe.forms import Form
from sandbox.stripe.objects import CardError, Charge, Intent, IntentStatus, new_id

CREATE: Final = frozenset(
    "amount currency payment_method payment_method_types allowed_payment_method_types confirm off_session "
    "error_on_requires_action metadata description capture_method confirmation_method".split()
)
CONFIRM: Final = frozenset("payment_method off_session error_on_requires_action return_url".split())
CANCEL: Final = frozenset({"cancellation_reason"})
"""Parameters of each endpoint."""

CONFIRMABLE: Final[frozenset[IntentStatus]] = frozenset(
    ("requires_payment_method", "requires_confirmation", "requires_action")
)
CANCELABLE: Final = CONFIRMABLE
"""https://docs.stripe.com/api/payment_intents/cancel; a card payment that is processing is not one of the
rare cases that can be stopped."""


class Attempt(NamedTuple):
    """What an attempt to pay leaves: the intent, the charge if one was tried, the refusal if it failed."""

    intent: Intent
    charge: Charge | None = None
    refusal: StripeRefusal | None = None


def created(form: Form, now: int) -> Intent:
    """A new intent; it has charged nothing. Raises StripeRefusal."""
    form.check(CREATE)
    form.required("amount")
    amount = form.integer("amount") or 0
    currency = form.required("currency")
    if amount < 1:
        raise invalid("Invalid positive integer", param="amount", code="parameter_invalid_integer")
    if currency not in currencies.PRESENTABLE:
        raise invalid(f"Invalid currency: {currency}.", param="currency")
    if amount < currencies.MIN_AMOUNTS.get(currency, 1):  # told without a parameter
        raise invalid(
            f"The amount must be at least {currencies.MIN_AMOUNTS[currency]} {currency}.",
            code="amount_too_small",
        )
    if amount > currencies.max_amount(currency):
        raise invalid(
            f"The amount must be no more than {currencies.max_amount(currency)} {currency}.",
            param="amount",
            code="amount_too_large",
        )
    if currency in currencies.THREE_DECIMALS and amount % 10:
        raise invalid("The last digit of a three-decimal amount must be 0.", param="amount")
    method = form.get("payment_method")
    return Intent(
        id=new_id("pi"),
        amount=amount,
        currency=currency,
        payment_method=_known(method),
        metadata=form.nested("metadata"),
        created=now,
        status="requires_confirmation" if method else "requires_payment_method",
    )


def as_created(intent: Intent) -> Intent:
    """The intent as it was when it was new."""
    return replace(
        intent,
        status="requires_confirmation",
        amount_received=0,
        last_payment_error=None,
        latest_charge=None,
        canceled_at=None,
        cancellation_reason=None,
    )


def confirmed(intent: Intent, form: Form, now: int, *, at_once: bool = True) -> Attempt:
    """The attempt to pay it. Raises StripeRefusal where its status does not allow one.

    With `at_once` False the card's answer takes a while: the intent is `processing` until `processed`.
    """
    method = _known(form.get("payment_method")) or intent.payment_method
    if intent.status not in CONFIRMABLE:
        raise unexpected_state(
            intent,
            f"You cannot confirm this PaymentIntent because it has a status of {intent.status}.",
        )
    if method is None:
        raise unexpected_state(
            intent, "You cannot confirm this PaymentIntent because it's missing a payment method."
        )
    intent = replace(intent, payment_method=method, last_payment_error=None)
    if not at_once:
        return Attempt(replace(intent, status="processing"))
    alone = form.is_true("off_session") or form.is_true("error_on_requires_action")
    if method in cards.AUTHENTICATES and not alone:
        return Attempt(replace(intent, status="requires_action"))
    return processed(intent, now)


def processed(intent: Intent, now: int) -> Attempt:
    """What the card's bank said: the money, or a decline."""
    method = intent.payment_method
    assert method is not None
    codes = cards.DECLINES.get(method)
    if method in cards.AUTHENTICATES:
        codes = cards.AUTHENTICATION_REQUIRED
    charge = Charge(
        id=new_id("ch"),
        amount=intent.amount,
        currency=intent.currency,
        created=now,
        payment_intent=intent.id,
        status="failed" if codes else "succeeded",
        payment_method=method,
        paid=not codes,
        failure_code=codes and codes[0],
    )
    if not codes:
        return Attempt(
            replace(intent, status="succeeded", amount_received=intent.amount, latest_charge=charge.id),
            charge,
        )
    error = CardError(codes[0], codes[1], "Your card was declined.", charge.id)
    intent = replace(
        intent,
        status="requires_payment_method",
        payment_method=None,
        latest_charge=charge.id,
        last_payment_error=error,
    )
    return Attempt(intent, charge, declined(intent, error))


def canceled(intent: Intent, form: Form, now: int) -> Intent:
    """The intent made unpayable, for good. Raises StripeRefusal where its status does not allow it."""
    if intent.status not in CANCELABLE:
        raise unexpected_state(
            intent, f"You cannot cancel this PaymentIntent because it has a status of {intent.status}."
        )
    return replace(
        intent, status="canceled", canceled_at=now, cancellation_reason=form.get("cancellation_reason")
    )


def _known(method: str | None) -> str | None:
    if method is not None and method not in cards.KNOWN:
        raise missing("PaymentMethod", method, "payment_method", status=400)
    return method

"""The lifecycle of a card payment's intent: https://docs.stripe.com/payments/paymentintents/lifecycle.

Pure functions: they return new objects for the caller to store, and change nothing.
"""

import re
from typing import Final, NamedTuple

from msgspec.structs import replace

from sandbox.stripe import cards, currencies
from sandbox.stripe.errors import StripeRefusal, declined, invalid, missing, unexpected_state
from sandbox.stripe.forms import Form
from sandbox.stripe.objects import Address, CardError, Charge, Intent, IntentStatus, Shipping, new_id

CREATE: Final = frozenset(
    "amount currency payment_method payment_method_types allowed_payment_method_types confirm off_session "
    "error_on_requires_action metadata description shipping capture_method confirmation_method".split()
)
CONFIRM: Final = frozenset("payment_method off_session error_on_requires_action return_url".split())
CANCEL: Final = frozenset({"cancellation_reason"})
"""The parameters that each endpoint takes."""
ADDRESS: Final = tuple(Address.__struct_fields__)
SHIPPING: Final = tuple(Shipping.__struct_fields__)
"""The parameters inside `shipping[address]` and inside `shipping`."""
LONGEST_DESCRIPTION: Final = 1000

_COUNTRY: Final = re.compile("[A-Za-z]{2}")

CONFIRMABLE: Final[frozenset[IntentStatus]] = frozenset(
    ("requires_payment_method", "requires_confirmation", "requires_action")
)
CANCELABLE: Final = CONFIRMABLE
"""https://docs.stripe.com/api/payment_intents/cancel. A card payment that is processing can't be canceled."""


class Attempt(NamedTuple):
    """The result of an attempt to pay: the intent, the charge if one was made, the refusal if it failed."""

    intent: Intent
    charge: Charge | None = None
    refusal: StripeRefusal | None = None


def created(form: Form, now: int) -> Intent:
    """Makes an intent, which charges nothing yet. Raises StripeRefusal."""
    form.check(CREATE)
    form.required("amount")
    amount = form.integer("amount") or 0
    currency = form.required("currency")
    if amount < 1:
        raise invalid("Invalid positive integer", param="amount", code="parameter_invalid_integer")
    if currency not in currencies.PRESENTABLE:
        raise invalid(f"Invalid currency: {currency}.", param="currency")
    if amount < currencies.MIN_AMOUNTS.get(currency, 1):  # Stripe names no `param` here
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
        metadata=form.metadata(),
        created=now,
        status="requires_confirmation" if method else "requires_payment_method",
        description=form.text("description", LONGEST_DESCRIPTION),
        shipping=_shipping(form),
    )


def _shipping(form: Form) -> Shipping | None:
    """The address that the goods go to, if there is one. Raises StripeRefusal."""
    if not form.nested("shipping"):
        return None
    form.check_nested("shipping", SHIPPING)
    form.check_nested("shipping[address]", ADDRESS)
    if not form.nested("shipping[address]"):
        raise invalid(
            "Missing required param: shipping[address].", param="shipping[address]", code="parameter_missing"
        )
    address = Address(**{name: form.text(f"shipping[address][{name}]") for name in ADDRESS})
    if address.country is not None and not _COUNTRY.fullmatch(address.country):
        raise invalid(f"Country '{address.country}' is unknown.", param="shipping[address][country]")
    return Shipping(
        address,
        name=form.text("shipping[name]") or form.required("shipping[name]"),
        phone=form.text("shipping[phone]"),
        carrier=form.text("shipping[carrier]"),
        tracking_number=form.text("shipping[tracking_number]"),
    )


def as_created(intent: Intent) -> Intent:
    """Returns the intent as it was when it was created."""
    return replace(
        intent,
        status="requires_confirmation",
        amount_received=0,
        last_payment_error=None,
        latest_charge=None,
        canceled_at=None,
        cancellation_reason=None,
    )


def confirmed(intent: Intent, form: Form, now: int, *, completes: bool = True) -> Attempt:
    """Attempts to pay the intent. Raises StripeRefusal where its status does not allow that.

    Unless `completes`, the intent stays `processing` until it is passed to `processed`.
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
    if not completes:
        return Attempt(replace(intent, status="processing"))
    off_session = form.is_true("off_session") or form.is_true("error_on_requires_action")
    if method in cards.AUTHENTICATES and not off_session:
        return Attempt(replace(intent, status="requires_action"))
    return processed(intent, now)


def processed(intent: Intent, now: int) -> Attempt:
    """Concludes the attempt as the payment method says: the money is taken, or the card is declined."""
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
    """Cancels the intent for good. Raises StripeRefusal where its status does not allow that."""
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

"""The lifecycle of a refund: https://docs.stripe.com/api/refunds/create."""

from typing import Final

from msgspec.structs import replace

from sandbox.stripe import cards
from sandbox.stripe.errors import StripeRefusal, invalid
from sandbox.stripe.faults import Timing
from sandbox.stripe.forms import Form
from sandbox.stripe.objects import Charge, Intent, Refund, new_id

CREATE: Final = frozenset("payment_intent amount metadata reason".split())
"""The parameters that the endpoint takes."""


def created(form: Form, intent: Intent, given_back: int, now: int) -> Refund:
    """Makes a refund of the intent, of which `given_back` has been refunded before.

    Raises StripeRefusal: the intent has no successful charge, or too little of it is left.
    """
    if intent.status != "succeeded" or intent.latest_charge is None:
        raise StripeRefusal(
            400,
            "invalid_request_error",
            f"This PaymentIntent ({intent.id}) does not have a successful charge to refund.",
            executed=True,
            param="payment_intent",
        )
    left = intent.amount_received - given_back
    if left <= 0:
        raise StripeRefusal(
            400,
            "invalid_request_error",
            f"Charge {intent.latest_charge} has already been refunded.",
            executed=True,
            code="charge_already_refunded",
        )
    amount = form.integer("amount")
    if amount is None:
        amount = left
    if amount < 1:
        raise invalid("Invalid positive integer", param="amount", code="parameter_invalid_integer")
    if amount > left:
        raise StripeRefusal(
            400,
            "invalid_request_error",
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left}).",
            executed=True,
            param="amount",
        )
    return Refund(
        id=new_id("re"),
        amount=amount,
        currency=intent.currency,
        created=now,
        payment_intent=intent.id,
        charge=intent.latest_charge,
        metadata=form.metadata(),
        reason=form.get("reason"),
    )


def begun(refund: Refund, charge: Charge, earlier: int, timing: Timing) -> tuple[Refund, float | None]:
    """Returns the refund as it is first answered, and the seconds until it ends, or None if it has ended.

    Both depend on the card (https://docs.stripe.com/testing#refunds), on `timing` and on the number of
    `earlier` refunds of the charge.
    """
    if charge.payment_method == cards.REFUNDS_PEND:
        if not timing.pending_refund_seconds:
            return refund, None
        return replace(refund, status="pending", pending_reason="processing"), timing.pending_refund_seconds
    if charge.payment_method == cards.REFUNDS_FAIL and earlier < timing.failing_refunds:
        if not timing.failing_refund_seconds:
            return ended(refund, charge), None
        return refund, timing.failing_refund_seconds
    return refund, None


def ended(refund: Refund, charge: Charge) -> Refund:
    """Concludes the refund as the payment method says."""
    if charge.payment_method == cards.REFUNDS_FAIL:
        return replace(refund, status="failed", failure_reason="expired_or_canceled_card")
    return replace(refund, status="succeeded", pending_reason=None)

"""What may be given back: https://docs.stripe.com/api/refunds/create."""

from typing import Final

from ops.stripe.errors import StripeRefusal, invalid
from ops.stripe.forms import Form
from ops.stripe.objects import Intent, Refund, new_id

CREATE: Final = frozenset("payment_intent amount metadata reason".split())
"""Parameters of the endpoint."""


def created(form: Form, intent: Intent, given_back: int, now: int) -> Refund:
    """A refund of the intent, of which `given_back` was given back before.

    Raises StripeRefusal: there is no money, none is left, or less than is asked for.
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
        metadata=form.nested("metadata"),
        reason=form.get("reason"),
    )

"""Stripe's objects, with the fields that card payments need.

https://docs.stripe.com/api/payment_intents/object, https://docs.stripe.com/api/charges/object and
https://docs.stripe.com/api/refunds/object. Amounts are in Stripe's minor unit, times in seconds since 1970.
"""

import secrets
from typing import Literal, TypeAlias

from msgspec import Struct

IntentStatus: TypeAlias = Literal[
    "requires_payment_method",
    "requires_confirmation",
    "requires_action",
    "processing",
    "succeeded",
    "canceled",
]


class CardError(Struct, frozen=True):
    """The reason why the last attempt to pay an intent failed."""

    code: str
    decline_code: str
    message: str
    charge: str | None
    type: Literal["card_error"] = "card_error"


class Address(Struct, frozen=True):
    """A postal address: https://docs.stripe.com/api/payment_intents/object#payment_intent_object-shipping."""

    city: str | None
    country: str | None
    line1: str | None
    line2: str | None
    postal_code: str | None
    state: str | None


class Shipping(Struct, frozen=True):
    """Where the goods go."""

    address: Address
    name: str
    phone: str | None = None
    carrier: str | None = None
    tracking_number: str | None = None


class Intent(Struct, frozen=True):
    """A PaymentIntent: one payment, from its creation to its end."""

    id: str
    amount: int
    currency: str
    payment_method: str | None
    metadata: dict[str, str]
    created: int
    status: IntentStatus
    description: str | None = None
    shipping: Shipping | None = None
    amount_received: int = 0
    last_payment_error: CardError | None = None
    latest_charge: str | None = None
    canceled_at: int | None = None
    cancellation_reason: str | None = None
    livemode: bool = False
    object: Literal["payment_intent"] = "payment_intent"


class Charge(Struct, frozen=True):
    """One attempt to take the money. Only one that `succeeded` took any."""

    id: str
    amount: int
    currency: str
    created: int
    payment_intent: str
    status: Literal["succeeded", "failed"]
    payment_method: str
    paid: bool
    failure_code: str | None = None
    livemode: bool = False
    object: Literal["charge"] = "charge"


class Refund(Struct, frozen=True):
    """A refund. One that `failed` gave no money back."""

    id: str
    amount: int
    currency: str
    created: int
    payment_intent: str
    charge: str
    metadata: dict[str, str]
    reason: str | None = None
    status: Literal["pending", "succeeded", "failed"] = "succeeded"
    failure_reason: str | None = None
    pending_reason: str | None = None
    object: Literal["refund"] = "refund"


def new_id(prefix: str) -> str:
    """Returns a random id such as `pi_…`, `ch_…`, `re_…` or `req_…`."""
    return f"{prefix}_{secrets.token_hex(12)}"

"""The parameters of a new PaymentIntent: https://docs.stripe.com/api/payment_intents/create.

`description`, the recipient's name and the shipping address are what India asks for goods that are exported
(https://docs.stripe.com/india-accept-international-payments). It asks for the billing address too: that is
part of the payment method, which the shop has made. Stripe's checks against fraud use the address everywhere.

`metadata` holds what Orderflow finds its charges by, and nothing else. The shop's own metadata is left out,
because it may have the same keys. `receipt_email` is left out, because Orderflow writes to the customer
itself.
"""

from typing import TYPE_CHECKING

from services.billing.provider import ChargeRequest, Recipient

if TYPE_CHECKING:
    from stripe.params import PaymentIntentCreateParams, PaymentIntentCreateParamsShipping


def new_intent(request: ChargeRequest, amount: int) -> "PaymentIntentCreateParams":
    """The parameters of the request's intent; `amount` is in Stripe's minor unit.

    Equal requests have equal parameters: Stripe refuses a key that it knows with other ones.
    """
    metadata = {
        "payment_id": str(request.payment_id),
        "order_id": str(request.order_id),
        "reference": request.order_reference,
        "key_hash": request.key_hash,
    }
    parameters: PaymentIntentCreateParams = {
        "amount": amount,
        "currency": request.currency.lower(),
        "payment_method": request.payment_method,
        "allowed_payment_method_types": ["card"],
        "metadata": {name: value for name, value in metadata.items() if value is not None},
    }
    if request.description is not None:
        parameters["description"] = request.description
    if request.recipient is not None:
        parameters["shipping"] = _shipping(request.recipient)
    return parameters


def _shipping(recipient: Recipient) -> "PaymentIntentCreateParamsShipping":
    address = recipient.address
    shipping: PaymentIntentCreateParamsShipping = {
        "name": recipient.name,
        "address": {"line1": address.line1, "city": address.city, "country": address.country},
    }
    if address.line2 is not None:
        shipping["address"]["line2"] = address.line2
    if address.state is not None:
        shipping["address"]["state"] = address.state
    if address.shown_postal_code is not None:
        shipping["address"]["postal_code"] = address.shown_postal_code
    if recipient.phone is not None:
        shipping["phone"] = recipient.phone
    return shipping

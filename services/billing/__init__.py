"""Billing takes the payment of every invoice, and refunds it when the parcel can't be sent.

Owns: schema `billing`: payments (at most one per order), refunds (at most one per order and cause),
    recovered_charges (charges that a restored database did not know). The simulated payment provider owns
    schema `provider`.
Publishes: PAYMENT_CONFIRMED, PAYMENT_FAILED, PAYMENT_REFUNDED, ORDER_DELAYED.
Listens to: INVOICE_CREATED (charges), SHIPMENT_ERROR (refunds).

No order is charged twice and no payment is forgotten: billing repeats a request under the same idempotency
key (`domain.IdempotencyKey`) until the provider's answer is final. A total of 0 is paid, and refunded, at
once and without a provider.
"""

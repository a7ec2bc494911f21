"""Billing: collects the payment of every invoice, and gives it back when the parcel can't be sent.

Owns: payments (at most one per order) and refunds (at most one per order and cause), and their keys with the
payment provider. Listens to INVOICE_CREATED (charge) and SHIPMENT_ERROR (refund). Publishes
PAYMENT_CONFIRMED, PAYMENT_FAILED and PAYMENT_REFUNDED.

Promise: nobody is charged twice, and no payment is forgotten. What is not known is asked again under the same
idempotency key (see `domain.IdempotencyKey`) until the provider's answer is definite.

The simulated provider (`simulated`) keeps its own ledger in the schema `provider`, as a third party would;
its migrations are in `ledger/`.
"""

"""Stripe as the payment provider: PaymentIntents and refunds through the official SDK.

A payment takes two steps, so that every unknown outcome can be resolved. Creating an intent charges nothing.
Confirming it charges the card, and Stripe lets an intent succeed at most once, however often and by whomever
it is confirmed. After a timeout, a reset or a 500 the intent is retrieved; its status says whether nothing is
left to do, or it has to be confirmed or cancelled. A declined intent could still be paid later, so it is
cancelled before the decline is reported.

Creating an intent again under the same idempotency key finds the same intent. Stripe saves each answer with
its key for 24 hours, errors of its own too. If `Idempotent-Replayed` shows that the creation ended in such an
error, nobody knows the id of that key's intent, so nobody can confirm it: the answer is KeyVoid, and the
payment goes on under its next key.

https://docs.stripe.com/payments/paymentintents/lifecycle, https://docs.stripe.com/api/idempotent_requests
"""

"""Invoice issues one invoice for every order, numbered without gaps.

Owns: invoices, the counters of their numbers, and numbers lost in a restore (schema `invoice`: `invoices`,
    `invoice_counters`, `lost_numbers`).
Publishes: INVOICE_CREATED.
Listens to: ORDER_CREATED.
Answers: `GET /invoices/{number}`.
"""

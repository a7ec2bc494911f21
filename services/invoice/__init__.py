"""The invoice service.

Owns: invoices, and the counters of their numbers (schema `invoice`).
Listens to: ORDER_CREATED.
Publishes: INVOICE_CREATED.
Answers: `GET /invoices/{number}`.
"""

"""Email writes to the customer at every milestone of an order: one mail per order and milestone.

Owns: `mails`, the record of every mail and its outcome (schema `email`), and their texts (`templates/`).
Publishes: nothing.
Listens to: ORDER_CREATED, INVOICE_CREATED, PAYMENT_FAILED, PAYMENT_CONFIRMED, SHIPMENT_ERROR, SHIPPED,
    PAYMENT_REFUNDED.
"""

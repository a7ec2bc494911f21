"""Shipment books the carrier for every paid order.

Owns: `shipments`, one per paid order (schema `shipment`). The simulated carrier owns `bookings` (schema
    `carrier`).
Publishes: SHIPPED, SHIPMENT_ERROR, ORDER_DELAYED.
Listens to: PAYMENT_CONFIRMED.
"""

"""The shipment service.

Owns: shipments, one per paid order, and the simulated carrier's own book (schema `shipment`).
Listens to: PAYMENT_CONFIRMED.
Publishes: SHIPPED, SHIPMENT_ERROR.
"""

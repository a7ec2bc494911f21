"""order: takes orders, prices them, keeps them, and tells where each one stands.

Owns the orders, their idempotency keys and their timelines (schema `order`).
Publishes ORDER_CREATED.
Listens to every event but its own: each is a line in its order's timeline.
"""

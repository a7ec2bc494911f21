"""order: takes orders, prices them, keeps them, and tells where each one stands.

Owns the orders, their idempotency keys, their timelines and their delays (schema `order`).
Publishes ORDER_CREATED.
Listens to every event but its own: each milestone is a line in its order's timeline, and ORDER_DELAYED says
what the order waits for.
"""

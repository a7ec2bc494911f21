"""Order takes customers' orders, and answers where each one stands.

Owns: orders, their timelines and delays, and idempotency keys (schema `order`: `orders`, `timeline`,
    `delays`, `idempotency_keys`).
Publishes: ORDER_CREATED.
Listens to: every event of the other services. Each milestone becomes a line in its order's timeline;
    ORDER_DELAYED says why an order waits.
Answers: `POST /orders`, `GET /orders/{id}`.
"""

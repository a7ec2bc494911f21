"""Dead events and dead work: lists them for an operator, who replays or discards them.

It owns no table: dead rows stay in the services' tables, and messages that could not be decoded are moved
there from the broker's dead-letter queues. Each replay and discard is recorded in the service's
`interventions`.
"""

"""Reconciliation sends events that a service never got to its queue again, continuously.

Owns nothing. It reads every outbox and inbox with a role that can't write, and sends the outbox's messages
through the bus. So a queue that was purged, unbound, or lost with the broker's data heals without a person.
"""

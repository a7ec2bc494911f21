"""Replay hands published events to one service again, past the broker, on any transport.

Owns nothing. The events go from the outboxes into the service's own parked events, due at once. So the
service itself handles them, under the same rules as a retried event.
"""

"""Replay: what the outboxes hold is handed to one service again, past the broker, on any transport.

It owns nothing. The events go into the service's own parked events, due at once, so the service itself
handles them, with the same care as a failed event that is tried again.
"""

"""Reconciliation: what a service never got of what was published is sent to its queue alone, all the time.

It owns nothing. It reads every outbox and inbox, with a role that can write nowhere, and puts on the bus what
an outbox holds: a queue that was purged, unbound, or lost with the broker's data heals by itself.
"""

"""The system under faults: a cluster of real processes, a load on it, what breaks it, and what checks it.

`make faults` strikes every listed fault once, `make soak` a random schedule that a seed repeats.
"""

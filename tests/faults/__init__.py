"""Fault runs: a cluster of real processes under load, faults that break it, and checks of the outcome.

`make faults` strikes every listed fault once; `make soak` strikes a random schedule that a seed repeats.
"""

"""The benchmark: the cost of an order, beside the same business built with the usual tools.

`make bench` starts its own PostgreSQL and RabbitMQ and runs every system on them in turn, for several rounds.
It compares systems by their ratios within a round.
"""

"""The benchmark: what an order costs, side by side with what is built with the usual tools.

`make bench` starts a PostgreSQL and a RabbitMQ of its own and runs every system on them, one after the other,
for several rounds; what it says of one system against another are ratios within a round.
"""

"""Simulation: the real services on a real PostgreSQL, stepped one whole transaction at a time.

The participants are those of the services: handlers, repositories, workers, runners, relays, retries. What
they meet is simulated, each as its protocol promises: a broker that keeps its queues, a payment provider with
a ledger of its own, a carrier, a mail server, and clients. Whatever touches the outside is a step: one
transaction from BEGIN to COMMIT, one publish, one delivery, one acknowledgement, one call. Everybody waits
before a step until the scheduler lets exactly one go on; its seed decides which, how the step ends (well,
refused, its answer lost, its process killed before or after the effect) and what happens in between
(processes die and start, deliveries are lost and doubled, time passes). So one seed is one run, and repeats.

`loop` (virtual time), `scheduler` (the choices), `process`, `database`, `broker`, `outside` and `client` are
the world; `schedule` runs one, `checks` judges it, `broken` has systems that are wrong on purpose.
"""

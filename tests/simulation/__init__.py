"""Simulation: runs the real services on a real PostgreSQL, one step at a time, by a seed.

The services' handlers, repositories, workers, runners, relays and retries are real. The broker, the payment
provider, the carrier, the mail server and the clients are simulated, each with its protocol's promises. A
step is one transaction from BEGIN to COMMIT, one publish, one delivery, one acknowledgement or one call. All
tasks wait before a step, and the scheduler runs exactly one. Its seed decides which step, how it ends (well,
refused, answer lost, process killed before or after the effect) and what happens in between (processes die
and start, deliveries are lost and doubled, time passes). So a seed is one schedule, and repeats it.

`loop` (virtual time), `scheduler` (the choices), `process`, `database`, `broker`, `third_parties` and
`client` make up the simulated world; `schedule` runs one schedule, `checks` checks the result, and `broken`
has systems with a deliberate mistake.
"""

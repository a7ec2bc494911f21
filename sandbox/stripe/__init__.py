"""A server that answers as Stripe does and moves no money. Tests tell it how to misbehave.

It stands for a third party: it imports no service and uses no database of ours. Its ledger, a SQLite file,
holds every intent, charge, refund and idempotency key, and is committed before each answer. Tests compare
billing's tables with this ledger. It covers what taking and refunding a card payment needs: PaymentIntents
(create, confirm, retrieve, cancel, search, list), refunds (create, retrieve, list), test payment methods,
error shapes and idempotency as https://docs.stripe.com/api documents them.

With `--scripted` it also serves the control API under `/_control`, a path that Stripe does not have: there a
test plans faults (`faults.py`) and reads the ledger. `control.py` is the client.
"""

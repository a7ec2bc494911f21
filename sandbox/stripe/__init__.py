"""A payment provider to be beaten up: a server that answers as Stripe does, and misbehaves as it is told.

It is a third party: it knows no service of ours and nothing of our database. It owns its ledger (a SQLite
file), which holds every intent, charge, refund and idempotency key, and commits it before it answers; what it
charged is told by it, not by us. It covers the part of Stripe's API that taking and giving back a card
payment needs: PaymentIntents (create, confirm, retrieve, cancel, search, list) and refunds (create, retrieve,
list), test payment methods, error shapes and idempotency as documented at https://docs.stripe.com/api.

Started with `--scripted` it has a personality (`personality.py`) under `/_personality`, a path that Stripe
does not have; `control.py` is the client of that.
"""

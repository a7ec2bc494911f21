"""Refunds that a person makes: what the payment provider would not give back is recorded here.

It owns nothing of its own: billing's refund is settled in billing's schema, with billing's role, and the act
is recorded in billing's `interventions`.
"""

"""Refunds by hand: a person records that they refunded what the payment provider would not.

Owns nothing. It settles billing's refund in billing's schema, with billing's role, and records the act in
billing's `interventions`.
"""

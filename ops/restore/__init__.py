"""Restore: brings a restored database in line with the payment provider and with the mails that were sent.

`charges` finds the provider's charges that billing has no payment for, decides what to do with each, and
makes the refunds; `preconditions` checks that the services are stopped. The decisions are stored in billing's
`recovered_charges` and invoice's `lost_numbers`, and recorded in their `interventions`.
"""

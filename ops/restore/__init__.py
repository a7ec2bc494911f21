"""Restore: settles what a restored database has forgotten, and the payment provider and the mails have not.

`charges` finds the charges that no payment is known for, decides about each and gives back what is to be
given back; `standstill` makes sure that nothing works meanwhile. What was decided is kept in billing's
`recovered_charges` and invoice's `lost_numbers`, and recorded in their `interventions`.
"""

"""The audit: checks that the services, the broker and the payment provider agree with one another.

It changes nothing, and may run on a live system. It reads the database in one snapshot; work that is younger
than `patience` seconds may be unfinished. A part that does not answer is reported as unseen, and the rest is
checked. The provider's ledger is read after the snapshot and compared in temporary tables.

`orders`, `money`, `delivery`, `invoices` and `mails` hold the promises, each with the query that finds its
breaches. docs/guarantees.md says how the promises are kept.
"""

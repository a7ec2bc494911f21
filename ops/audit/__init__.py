"""The audit: do the services, the broker and the payment provider tell the same story?

It reads everything and changes nothing, on a live system, at one moment of the database: what is on its way
is given some seconds (`patience`) before it counts. What can't be seen is said, and the rest is checked. The
provider's ledger is read after that moment, beside copies of what is compared with it (`copies`). The
promises are in `orders`, `money`, `delivery`, `invoices` and `mails`, each with the query that finds who
breaks it; docs/guarantees.md tells how they are kept.
"""

"""The email service: writes to the customer at every stage of an order.

Owns: the record of every mail and its outcome (`mails`), and what the mails say (`templates/`).
Publishes: nothing.
Listens to: every milestone. One mail per order and stage; the stage is the milestone's type.
"""

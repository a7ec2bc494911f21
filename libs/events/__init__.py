"""Events: how Orderflow's services meet.

What is here is the same for every service and every transport: the contracts of the events and their
envelope, the journey that they make, the bus they travel on (memory, RabbitMQ), and the way work flows: a
worker handles a batch in one transaction, the outbox announces what that transaction decided, leases carry
what must happen later, and parked events keep what could not be handled.
"""

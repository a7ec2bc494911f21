"""Events: how Orderflow's services meet.

Everything here is the same for every service and every transport: the contracts of the events, their
envelope, the order's journey, the bus (memory, RabbitMQ, AWS), and the flow of work. A worker handles a batch
in one transaction; the outbox publishes the events of that transaction; leased rows stand for work that
happens later; an event that could not be handled is parked.
"""

"""Dead work: what the services have set aside for a person, and what a person may do about it.

It owns nothing of its own: dead events and dead work lie in the services' tables, what could not be decoded
is taken from the broker into them, and every act is recorded in the service's `interventions`.
"""

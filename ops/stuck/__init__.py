"""Stuck orders: finds orders that are delayed or late, and says what each waits for and what to do.

It changes nothing. An order continues by itself as soon as the system that it waits for is available.
"""

"""Stuck orders: which orders are held up or late, what each waits for, and what helps.

Nothing here changes anything. What waits goes on by itself as soon as what it needs is there; this tells what
that is.
"""

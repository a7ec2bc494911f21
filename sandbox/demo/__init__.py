"""The demo: realistic orders go through the whole system before your eyes, and are checked at the end.

Owns: a fresh state folder per run, `var/demo/<time>`. Speaks to the system over HTTP, as a merchant's backend
does.
"""

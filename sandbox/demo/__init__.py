"""The demo sends the example orders through the whole system, shows each on its way, and checks the outcome.

Owns: a new state folder per run, `var/demo/<time>`. Calls the system over HTTP, as a merchant's backend does.
"""

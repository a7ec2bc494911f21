"""End to end: the system as `docker compose up` runs it, met only through the ports that it publishes."""

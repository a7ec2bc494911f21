"""End to end: the system as `docker compose up` runs it, tested only through its published ports."""

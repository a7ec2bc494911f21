"""What every process needs, once: settings, database, health, logging, problem documents."""

"""Shared by every process: settings, database, health, logging, problem documents, start and stop."""

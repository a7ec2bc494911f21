"""Alembic's entry point for the ledger of the simulated payment provider."""

from chassis.migrations import run_env
from services.billing.simulated import METADATA

run_env(METADATA, with_events=False)

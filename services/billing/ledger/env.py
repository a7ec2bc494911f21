"""Alembic's entry into the history of the simulated provider's ledger."""

from chassis.migrations import run_env
from services.billing.simulated import LEDGER

run_env(LEDGER, with_events=False)

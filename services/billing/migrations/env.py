"""Alembic's entry point for billing's tables."""

from chassis.migrations import run_env
from services.billing import recovered_charges
from services.billing.repository import METADATA

assert recovered_charges.RECOVERED_CHARGES.metadata is METADATA
run_env(METADATA)

"""Alembic's entry into billing's history."""

from chassis.migrations import run_env
from services.billing import recovered
from services.billing.repository import METADATA

assert recovered.RECOVERED_CHARGES.metadata is METADATA
run_env(METADATA)

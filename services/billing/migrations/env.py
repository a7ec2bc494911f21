"""Alembic's entry into billing's history."""

from chassis.migrations import run_env
from services.billing.repository import METADATA

run_env(METADATA)

"""Alembic's entry into the history of the simulated carrier's bookings."""

from chassis.migrations import run_env
from services.shipment.simulated import METADATA

run_env(METADATA, with_events=False)

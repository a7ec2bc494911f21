from chassis.migrations import run_env
from services.shipment.repository import METADATA

run_env(METADATA)

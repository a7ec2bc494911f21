from chassis.migrations import run_env
from services.order.repository import METADATA

run_env(METADATA)

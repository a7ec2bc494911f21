from chassis.migrations import run_env
from services.invoice.repository import METADATA

run_env(METADATA)

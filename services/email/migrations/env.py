from chassis.migrations import run_env
from services.email.repository import METADATA

run_env(METADATA)

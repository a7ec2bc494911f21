"""`orderflow migrate` as a Lambda function, invoked by hand after each deployment.

It migrates the database only: topics and queues are in the template.
"""

import os
from typing import Final

import uvloop

from chassis import revisions
from chassis.settings import LogSettings, read
from chassis.telemetry import configure_logging
from events.aws import secrets
from ops.migrate import HISTORIES, migrate, owner_url, passwords_from_environment

WAIT_SECONDS: Final = 60.0
"""How long the database may take to answer."""


def handler(_event: object, _context: object) -> dict[str, str]:
    """Migrates the database to this version, and returns each schema's revision.

    Raises CommandFailed or UnusableSettings, with the reason.
    """
    configure_logging("migrate", read(LogSettings))
    os.environ.update(secrets.resolve(os.environ))
    url = owner_url(os.environ.get("DATABASE_URL", ""))
    uvloop.run(migrate(url, passwords_from_environment(), wait=WAIT_SECONDS))
    return {schema: revisions.head(history) for schema, history in HISTORIES.items()}

"""Settings: read from the environment, checked once, never changed."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _for_asyncpg(url: str) -> str:
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+asyncpg://" + url.removeprefix(scheme)
    return url


DatabaseUrl = Annotated[str, AfterValidator(_for_asyncpg)]
"""A PostgreSQL URL; the driver may be left out: `postgresql://user:password@host:5432/orderflow`."""


Days = Annotated[int, Field(ge=1, le=36500)]
"""A lifetime."""


class LogSettings(BaseSettings):
    """How a process logs."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] = "json"


class ServiceSettings(LogSettings):
    """What every service needs to know. A service with more to know extends it."""

    database_url: DatabaseUrl
    """With the service's own role, `<database>_<service>`."""
    database_pool: Annotated[int, Field(ge=2, le=100)] = 8
    """Most connections of this process."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Where the process answers HTTP: its API, if it has one, and its health."""
    attempts_days: Days = 60
    """How long it is remembered how often an event was tried that never came to an end."""
    interventions_days: Days = 730
    """How long the record of what people did by hand is kept."""


class BrokerSettings(BaseSettings):
    """Where events travel between processes."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    broker_url: str
    """`amqp://user:password@host:5672/vhost`."""

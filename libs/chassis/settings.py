"""Settings: read from the environment, checked once, never changed.

Always read them with `read`, which turns errors into sentences.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError


class Settings(BaseSettings):
    """Settings from the environment. An empty variable counts as unset.

    A field `x_password` is inserted into the field `x_url`, so a password needs no percent-encoding. A
    password in the URL itself takes precedence.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    @model_validator(mode="before")
    @classmethod
    def _put_passwords_in(cls, given: dict[str, Any]) -> dict[str, Any]:
        addresses = {
            address: _with_password(given[address], given[name], address)
            for name in cls.model_fields
            if name.endswith("_password") and given.get(name)
            if given.get(address := name.removesuffix("_password") + "_url")
        }
        return given | addresses


def _with_password(url: str, password: str | SecretStr, name: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # the URL's validator reports it
        return url
    user, _, host = parts.netloc.rpartition("@")
    if ":" in user:
        return url
    if not user:
        raise ValueError(f"{name.upper()} names no user to whom the password could belong.")
    secret = password.get_secret_value() if isinstance(password, SecretStr) else password
    return parts._replace(netloc=f"{user}:{quote(secret, safe='')}@{host}").geturl()


class UnusableSettings(Exception):
    """Environment variables have unusable values. The message names the variables, but no values."""

    def __init__(self, invalid: ValidationError) -> None:
        sentences: list[str] = []
        for error in invalid.errors(include_url=False, include_input=False):
            name = "_".join(map(str, error["loc"])).upper()
            own = error.get("ctx", {}).get("error")  # from our validators
            sentence = str(own) if own else f"{error['msg']}."
            sentences.append(f"{name}: {sentence}" if name else sentence)
        super().__init__("\n".join(sentences))


S = TypeVar("S", bound=BaseSettings)


def read(settings: Callable[..., S], **given: Any) -> S:
    """Reads the settings from `given` and the environment. Raises UnusableSettings."""
    try:
        return settings(**given)
    except ValidationError as invalid:
        raise UnusableSettings(invalid) from None  # the cause contains values


def _postgres(url: str) -> str:
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            url = "postgresql+asyncpg://" + url.removeprefix(scheme)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # a ValueError may contain part of a password
        parsed = None
    if parsed is None or parsed.drivername != "postgresql+asyncpg" or not parsed.database:
        raise ValueError("This is not like postgresql://user:password@host:5432/orderflow.")
    return parsed.render_as_string(hide_password=False)


def _amqp(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("amqp", "amqps") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("This is not like amqp://user:password@host:5672/vhost.")
    return url


DatabaseUrl = Annotated[str, AfterValidator(_postgres)]
"""A PostgreSQL URL, with or without the driver: `postgresql://user:password@host:5432/orderflow`."""
BrokerUrl = Annotated[str, AfterValidator(_amqp)]
"""`amqp[s]://user:password@host:5672/vhost`."""
Days = Annotated[int, Field(ge=1, le=36500)]
"""A lifetime in days."""


class LogSettings(Settings):
    """How a process logs."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] = "json"


class TextLogSettings(LogSettings):
    """How an interactive process logs: as text by default."""

    log_format: Literal["json", "text"] = "text"


class DatabaseSettings(Settings):
    """Where the database is."""

    database_url: Annotated[DatabaseUrl, Field(repr=False)]
    """For a service with the service's role, `<database>_<service>`."""
    database_password: SecretStr | None = None


class ServiceSettings(LogSettings, DatabaseSettings):
    """The settings of every service. A service with further settings extends it."""

    database_pool: Annotated[int, Field(ge=2, le=100)] = 8
    """Most connections of this process."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """The HTTP port, for health and the API if there is one."""
    attempts_days: Days = 60
    """How long the counts of attempts at unfinished events are kept."""
    interventions_days: Days = 730
    """How long interventions are kept."""


class BrokerSettings(Settings):
    """The broker between the processes."""

    broker_url: Annotated[BrokerUrl, Field(repr=False)]
    broker_password: SecretStr | None = None

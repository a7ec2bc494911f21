"""Settings: read from the environment, checked once, never changed.

`read` is the one way to them: what is wrong with a setting becomes a sentence, in every form of the system.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError


class Settings(BaseSettings):
    """Settings of the environment; an empty variable counts as unset.

    A field `x_password` goes into the address `x_url` beside it, so any password works as it is. Where the
    address has a password of its own, percent-encoded, that one stands.
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
    except ValueError:  # the address's own check says so
        return url
    user, _, host = parts.netloc.rpartition("@")
    if ":" in user:
        return url
    if not user:
        raise ValueError(f"{name.upper()} names no user to whom the password could belong.")
    secret = password.get_secret_value() if isinstance(password, SecretStr) else password
    return parts._replace(netloc=f"{user}:{quote(secret, safe='')}@{host}").geturl()


class UnusableSettings(Exception):
    """Environment variables have values that can't be used. The message names them, and repeats no value."""

    def __init__(self, invalid: ValidationError) -> None:
        sentences: list[str] = []
        for error in invalid.errors(include_url=False, include_input=False):
            name = "_".join(map(str, error["loc"])).upper()
            own = error.get("ctx", {}).get("error")  # a sentence of our own validators
            sentence = str(own) if own else f"{error['msg']}."
            sentences.append(f"{name}: {sentence}" if name else sentence)
        super().__init__("\n".join(sentences))


S = TypeVar("S", bound=BaseSettings)


def read(settings: Callable[..., S], **given: Any) -> S:
    """These settings, from the environment but for what is given. Raises UnusableSettings."""
    try:
        return settings(**given)
    except ValidationError as invalid:
        raise UnusableSettings(invalid) from None  # the cause repeats values


def _postgres(url: str) -> str:
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            url = "postgresql+asyncpg://" + url.removeprefix(scheme)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # a ValueError repeats what stands for a port: part of a password
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
"""A PostgreSQL URL; the driver may be left out: `postgresql://user:password@host:5432/orderflow`."""
BrokerUrl = Annotated[str, AfterValidator(_amqp)]
"""`amqp[s]://user:password@host:5672/vhost`."""
Days = Annotated[int, Field(ge=1, le=36500)]
"""A lifetime."""


class LogSettings(Settings):
    """How a process logs."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] = "json"


class TextLogSettings(LogSettings):
    """How a process logs that people watch: as text, unless they want otherwise."""

    log_format: Literal["json", "text"] = "text"


class DatabaseSettings(Settings):
    """Where the database is."""

    database_url: Annotated[DatabaseUrl, Field(repr=False)]
    """For a service with the service's own role, `<database>_<service>`."""
    database_password: SecretStr | None = None


class ServiceSettings(LogSettings, DatabaseSettings):
    """What every service needs to know. A service with more to know extends it."""

    database_pool: Annotated[int, Field(ge=2, le=100)] = 8
    """Most connections of this process."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Where the process answers HTTP: its API, if it has one, and its health."""
    attempts_days: Days = 60
    """How long it is remembered how often an event was tried that never came to an end."""
    interventions_days: Days = 730
    """How long the record of what people did by hand is kept."""


class BrokerSettings(Settings):
    """Where events travel between processes."""

    broker_url: Annotated[BrokerUrl, Field(repr=False)]
    broker_password: SecretStr | None = None

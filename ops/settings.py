"""Settings of the services as commands read them: what is wrong with them becomes a sentence."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from ops.errors import CommandFailed

S = TypeVar("S", bound=BaseSettings)


class UnusableSettings(CommandFailed):
    """Environment variables have values that can't be used."""

    def __init__(self, invalid: ValidationError) -> None:
        named = (
            f"{'_'.join(map(str, error['loc'])).upper() or 'The settings'}: {error['msg']}"
            for error in invalid.errors(include_url=False, include_input=False)
        )
        super().__init__("\n".join(named))


def read(settings: Callable[..., S], **given: Any) -> S:
    """These settings, from the environment but for what is given. Raises UnusableSettings."""
    try:
        return settings(**given)
    except ValidationError as invalid:
        raise UnusableSettings(invalid) from invalid

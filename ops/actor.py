"""The person who gives a command: every intervention is recorded with a person's name."""

import os
import pwd
from typing import Final

from ops.errors import CommandFailed

MAX_LENGTH: Final = 100


class ActorNotNamed(CommandFailed):
    """The command needs a person's name, and the account is not a person's."""

    def __init__(self, account: str) -> None:
        super().__init__(
            f"Give your name for the record, with --as NAME or ORDERFLOW_ACTOR=NAME: "
            f"{account} does not belong to a person."
        )


class UnusableName(CommandFailed):
    """A name is one line of at most 100 printable characters."""


def resolve_actor(name: str) -> str:
    """Returns the given name, or else the name of the account that runs the command.

    Root, accounts without a name, and accounts without a login shell (service accounts, as in our image) do
    not count as a person's.

    Raises:
        CommandFailed: no person is named, or the name can't be used.
    """
    if name := name.strip():
        if len(name) > MAX_LENGTH or not name.isprintable():
            raise UnusableName(UnusableName.__doc__)
        return name
    try:
        account = pwd.getpwuid(os.getuid())
    except KeyError:
        raise ActorNotNamed(f"the account with the uid {os.getuid()}") from None
    if account.pw_uid == 0 or account.pw_shell.endswith(("/nologin", "/false")):
        raise ActorNotNamed(f"the account {account.pw_name}")
    return account.pw_name

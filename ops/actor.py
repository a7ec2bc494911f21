"""Who gives a command that changes something: a person, because every act is recorded with a name."""

import os
import pwd
from typing import Final

from ops.errors import CommandFailed

MAX_LENGTH: Final = 100


class NobodyNamed(CommandFailed):
    """The act has to be recorded with a person's name."""

    def __init__(self, account: str) -> None:
        super().__init__(
            f"Say who does this, for the record: --as NAME or ORDERFLOW_ACTOR=NAME. {account} is no person's."
        )


class UnusableName(CommandFailed):
    """A name is one line of at most 100 characters that can be seen."""


def actor(named: str) -> str:
    """The person that was named, else the account on the operating system if it is a person's.

    Root, an account without a name and one that nobody can log in to (a service's, as in our image) are no
    person's.

    Raises:
        CommandFailed: nobody is named, or the name can't be used.
    """
    if name := named.strip():
        if len(name) > MAX_LENGTH or not name.isprintable():
            raise UnusableName(UnusableName.__doc__)
        return name
    try:
        account = pwd.getpwuid(os.getuid())
    except KeyError:
        raise NobodyNamed(f"The account with the uid {os.getuid()}") from None
    if account.pw_uid == 0 or account.pw_shell.endswith(("/nologin", "/false")):
        raise NobodyNamed(f"The account {account.pw_name}")
    return account.pw_name

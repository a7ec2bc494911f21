"""Errors of commands: each message is a sentence for the person at the terminal."""

from typing import Final

INTERRUPTED: Final = 130
"""Exit status of a command that Ctrl-C stopped: 128 + SIGINT, as shells count."""


class CommandFailed(Exception):
    """The command can't do what was asked. The message says why and what to do about it."""


class RecordsUnreadable(CommandFailed):
    """The database does not answer, or does not permit reading."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"{self.__doc__} ({error})")

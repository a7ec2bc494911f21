"""Why a command can't do what was asked: each message is a sentence for the person at the terminal."""

from typing import Final

INTERRUPTED: Final = 130
"""Exit status of what Ctrl-C stopped before it was through: 128 + SIGINT, as shells count."""


class CommandFailed(Exception):
    """What was asked for can't be done; the message says why and what to do about it."""

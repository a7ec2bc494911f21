"""The messages of errors are sentences that fit a line of a log."""

import pytest

from events import errors

CLASSES = [
    each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.EventsError)
]


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_without_a_message_an_error_says_its_first_line(error: type[errors.EventsError]) -> None:
    message = str(error())
    assert message.endswith(".")
    assert "\n" not in message

"""Text in requests: one visible line that does not reorder the text around it.

It is printed in mail headers, on labels and invoices, and in pages.
"""

from pydantic_core import PydanticCustomError

from events.text import is_blank, is_visible_line


def single_line(text: str) -> str:
    """Returns the text unchanged. Raises PydanticCustomError if it is blank or not one line."""
    if is_visible_line(text):
        return text
    if is_blank(text):
        raise PydanticCustomError("blank", "This must contain a visible character.")
    message = "This must be one line of Unicode text, without control characters or direction overrides."
    raise PydanticCustomError("wrong_format", message)

"""JSON bodies, read strictly: a document that two readers could interpret differently is refused."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from inspect import signature
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from chassis.problems import Problem

MAX_BYTES: Final = 64 * 1024
"""A larger body is refused."""
READ_SECONDS: Final = 10.0
"""A body that takes longer to arrive is refused."""


class StrictJSONRoute(APIRoute):
    """A route whose body, if it takes one, is one JSON document (RFC 8259) in UTF-8 of at most MAX_BYTES.

    Any other body is refused with a Problem of status 400, 408, 413 or 415, or a RequestValidationError. An
    endpoint with a body takes the document and the request, in this order, and returns a Response.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """A handler that reads and validates the body and calls the endpoint, without FastAPI's layers.

        For a route without a body it is FastAPI's handler. Raises TypeError for an endpoint with a body whose
        parameters are not the document and the request.
        """
        document_field, endpoint = self.body_field, self.endpoint
        if document_field is None:
            return super().get_route_handler()
        if len(signature(endpoint).parameters) != 2:
            raise TypeError(f"{endpoint.__name__} must take the document and the request, and nothing else.")

        async def handle(request: Request) -> Response:
            _check_content_type(request)
            document, errors = document_field.validate(parse(await _read(request)), loc=("body",))
            if errors:
                raise RequestValidationError(errors)
            response: Response = await endpoint(document, request)
            return response

        return handle


def parse(body: bytes) -> Any:
    """The JSON document in the body, as Python objects.

    Raises a Problem (400) for invalid JSON, and for a byte order mark, a duplicate name in an object, NaN and
    the infinities, and nesting or integers that exceed Python's limits.
    """
    try:
        return _decoder.decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise _unreadable("The body must be UTF-8.") from None
    except _Refused as refused:
        raise _unreadable(str(refused)) from None
    except RecursionError:
        raise _unreadable("The body is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise _unreadable(f"The body is not one JSON document: see character {error.pos}.") from None
    except ValueError:  # Python's limit on the digits of an integer
        raise _unreadable("A number in the body has too many digits.") from None


class _Refused(Exception):
    """Python's decoder accepts this, and other readers may not."""


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(members)
    if len(document) != len(members):
        raise _Refused("An object in the body has a name twice.")
    return document


def _refuse_constant(_: str) -> None:
    raise _Refused("NaN and the infinities are not JSON.")


_decoder: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse_constant)


def _unreadable(detail: str) -> Problem:
    return Problem(400, "unreadable_body", detail)


def _check_content_type(request: Request) -> None:
    content_types = request.headers.getlist("content-type")
    if content_types == ["application/json"] and "content-encoding" not in request.headers:
        return
    media_type, _, parameters = "".join(content_types).lower().partition(";")
    is_json = len(content_types) == 1 and media_type.strip() == "application/json"
    is_utf8 = parameters.strip() in {"", "charset=utf-8", 'charset="utf-8"'}
    is_plain = request.headers.get("content-encoding", "identity").strip().lower() == "identity"
    if not (is_json and is_utf8 and is_plain):
        detail = "The body must be sent as Content-Type: application/json, in UTF-8 and not compressed."
        raise Problem(415, "unsupported_media_type", detail, headers={"Accept-Post": "application/json"})


async def _read(request: Request) -> bytes:
    """Reads the whole body. Refuses one over a limit as soon as that is known."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise Problem(408, "body_too_slow", f"The body took over {READ_SECONDS:.0f} seconds.") from None
    except ClientDisconnect:
        raise _unreadable("The connection ended before the body did.") from None
    if not body:
        raise _unreadable("The body is empty.")
    return bytes(body)


def _too_large() -> Problem:
    return Problem(413, "body_too_large", f"The body must have at most {MAX_BYTES} bytes.")

"""Errors over HTTP: every error answer is an RFC 9457 problem document.

It repeats nothing that the caller sent: neither values nor texts of exceptions.
https://www.rfc-editor.org/rfc/rfc9457
"""

import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, get_args

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from pydantic_core import core_schema
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from events.errors import Unavailable

CONTENT_TYPE: Final = "application/problem+json"
MAX_FAULTS: Final = 100
"""Most faults in one document. A body may have thousands."""

Path = Sequence[str | int]
Handle = Callable[[Request], Awaitable[Response]]
Explain = Callable[[Request, Exception], Awaitable[Response]]

logger = logging.getLogger(__name__)


class Fault(BaseModel):
    """One thing that is wrong with the body."""

    pointer: Annotated[str, Field(examples=["/items/0/quantity"])]
    """JSON pointer (RFC 6901) to the field, or to its object if the field's name is unusual."""
    code: Annotated[str, Field(examples=["too_small"])]
    detail: Annotated[str, Field(examples=["This must be at least 1."])]


class ProblemDocument(BaseModel):
    """Why there is no other answer (RFC 9457)."""

    type: Annotated[str, Field(examples=["urn:orderflow:problem:invalid_request"])]
    title: Annotated[str, Field(examples=["Invalid request"])]
    status: Annotated[int, Field(examples=[422])]
    detail: Annotated[str, Field(examples=["The body breaks the rules named in `errors`."])]
    instance: Annotated[str, Field(examples=["urn:uuid:01939a3e-5f4c-7c1e-8a2b-3c4d5e6f7081"])]
    """Names this one answer; the log has it when the fault is ours."""
    errors: list[Fault] = []


class Problem(Exception):
    """An error answer.

    `code` becomes the `type` and, in words, the title. `detail` is a sentence that repeats nothing of the
    request.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.faults = faults
        self.headers = headers


def invalid(faults: Sequence[Fault]) -> Problem:
    """A 422 with every fault of a body that is JSON, but breaks the rules."""
    detail = "The body breaks the rules named in `errors`."
    return Problem(422, "invalid_request", detail, faults=faults)


def pointer(path: Path) -> str:
    """JSON pointer (RFC 6901) of a path: `("items", 0, "sku")` is `/items/0/sku`."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def install(app: FastAPI) -> None:
    """Answers every error of the application with a problem document, and adds that to its OpenAPI."""
    app.router.redirect_slashes = False  # a client may not follow a redirect of a POST
    for kind, explain in _EXPLANATIONS.items():
        app.add_exception_handler(kind, explain)
    app.add_middleware(Fallback, caught=Exception, answer=_unforeseen)
    _describe(app)


def explaining(handle: Handle) -> Handle:
    """The handler, with its exceptions answered as in an application with `install`."""

    async def explained(request: Request) -> Response:
        try:
            try:
                return await handle(request)
            except tuple(_EXPLANATIONS) as error:
                explain = next(each for kind, each in _EXPLANATIONS.items() if isinstance(error, kind))
                return await explain(request, error)
        except Exception:  # noqa: BLE001  # _unforeseen logs it
            return _unforeseen(request.scope)

    return explained


def answer(problem: Problem) -> Response:
    """The problem as a response, with a type of Orderflow."""
    return _response(
        problem.status,
        f"urn:orderflow:problem:{problem.code}",
        problem.code.replace("_", " ").capitalize(),
        problem.detail,
        instance=_instance(),
        faults=problem.faults,
        headers=problem.headers,
    )


def _response(
    status: int,
    type_: str,
    title: str,
    detail: str,
    *,
    instance: str,
    faults: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    document: dict[str, Any] = {
        "type": type_,
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
        "errors": [fault.model_dump() for fault in faults[:MAX_FAULTS]],
    }
    return Response(msgspec.json.encode(document), status, headers, media_type=CONTENT_TYPE)


def _instance() -> str:
    return f"urn:uuid:{uuid7()}"


# The answer to each kind of exception


async def _on_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return answer(error)


_SENTENCES: Final = {
    404: "There is nothing at this address.",
    405: "This address does not take this method.",
}


async def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    sentence = _SENTENCES.get(status, f"{status.description or status.phrase}.")
    return _response(
        status, "about:blank", status.phrase, sentence, instance=_instance(), headers=error.headers
    )


async def _on_unavailable(_: Request, error: Exception) -> Response:
    assert isinstance(error, Unavailable)
    detail = "This can't be answered now. Ask again, with the same Idempotency-Key if there was one."
    headers = {"Retry-After": str(math.ceil(error.retry_after or 1))}
    return answer(Problem(503, "temporarily_unavailable", detail, headers=headers))


async def _on_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return answer(invalid([_fault(found) for found in error.errors()[:MAX_FAULTS]]))


_EXPLANATIONS: Final[dict[type[Exception], Explain]] = {
    Problem: _on_problem,
    HTTPException: _on_http_exception,
    RequestValidationError: _on_validation_error,
    Unavailable: _on_unavailable,
}


def _unforeseen(scope: Scope) -> Response:
    """Logs the present exception and answers 500. `instance` is the same in log and answer."""
    instance = _instance()
    logger.exception("unhandled: %s %s: %s", scope["method"], scope["path"], instance)
    return _response(
        500,
        "about:blank",
        "Internal Server Error",
        "Something went wrong here. It is in the log under the name in `instance`.",
        instance=instance,
    )


class Fallback:
    """Middleware that answers requests whose handling raises `caught` before an answer has begun."""

    def __init__(
        self, app: ASGIApp, caught: type[BaseException], answer: Callable[[Scope], Response]
    ) -> None:
        self._app = app
        self._caught = caught
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except self._caught:
            if started or scope["type"] != "http":
                raise
            await self._answer(scope)(scope, receive, send)


# Faults in our words, because pydantic's repeat values of the request

_BUILT_IN: Final = frozenset(get_args(core_schema.ErrorType))
_OBJECT: Final = ("wrong_type", "This must be an object.")
_INTEGER: Final = ("wrong_type", "This must be an integer.")
_WORDS: Final[dict[str, tuple[str, str]]] = {
    "missing": ("required", "This is required."),
    "extra_forbidden": ("unknown_field", "This field is not known here."),
    "string_type": ("wrong_type", "This must be a string."),
    "string_unicode": ("not_unicode", "This must be Unicode text, in names as in values."),
    "string_too_short": ("too_short", "This must have at least {min_length} characters."),
    "string_too_long": ("too_long", "This must have at most {max_length} characters."),
    "string_pattern_mismatch": ("wrong_format", "This must match the pattern {pattern}"),
    "bool_type": ("wrong_type", "This must be true or false."),
    "literal_error": ("unknown_value", "This must be one of {expected}."),
    "int_type": _INTEGER,
    "int_from_float": _INTEGER,
    "int_parsing": _INTEGER,
    "greater_than_equal": ("too_small", "This must be at least {ge}."),
    "less_than_equal": ("too_large", "This must be at most {le}."),
    "too_short": ("too_short", "There must be at least {min_length} of these."),
    "too_long": ("too_long", "There must be at most {max_length} of these."),
    "list_type": ("wrong_type", "This must be an array."),
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "dict_type": _OBJECT,
}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


def _fault(error: Mapping[str, Any]) -> Fault:
    """Translates an error of pydantic. Our own validators provide code and sentence themselves."""
    kind: str = error["type"]
    path: Path = error["loc"][1:] if error["loc"][:1] == ("body",) else error["loc"]
    if kind == "extra_forbidden" and not _NAME.fullmatch(str(path[-1])):
        path = path[:-1]  # the name comes from the caller, and may be anything
    if kind in _BUILT_IN:
        code, sentence = _WORDS.get(kind, ("invalid", "This is not a value that can be here."))
        detail = sentence.format_map(error.get("ctx", {}))
    else:
        code, detail = kind, error["msg"]
    return Fault(pointer=pointer(path), code=code, detail=detail)


def _describe(app: FastAPI) -> None:
    """Adds the problem document as the default answer of every operation."""
    original = app.openapi
    template = "#/components/schemas/{model}"
    problem = {
        "description": "Any other answer is a problem document.",
        "content": {CONTENT_TYPE: {"schema": {"$ref": template.format(model="ProblemDocument")}}},
    }

    def openapi() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        description = original()
        document = ProblemDocument.model_json_schema(ref_template=template)
        schemas = description.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(document.pop("$defs"), ProblemDocument=document)
        for fastapis_own in ("HTTPValidationError", "ValidationError"):
            schemas.pop(fastapis_own, None)
        for operations in description["paths"].values():
            for operation in operations.values():
                responses = operation["responses"]
                responses.pop("422", None)
                responses["default"] = problem
        return description

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it

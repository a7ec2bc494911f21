"""The SDK's client, and one call through it: its deadline, its answer, and the meaning of its errors."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import httpx
import msgspec
import stripe

from events.errors import Postponed, Unavailable, UnknownOutcome
from services.billing.stripe.errors import KeyInOtherUse, RefusedByStripe, SavedError

ANSWER_SECONDS: Final = 8.0
"""How long Stripe may take to answer. Its own deadline for a charge is longer; then billing asks again."""

T = TypeVar("T")


@asynccontextmanager
async def open_client(
    api_key: str, base_url: str | None, answer_seconds: float
) -> AsyncIterator[stripe.StripeClient]:
    """Opens the SDK's client on Stripe, or on the server at `base_url`.

    The SDK does not retry, because the runner does, and it sends no telemetry.
    """
    stripe.enable_telemetry = False
    logging.getLogger("stripe").setLevel(logging.WARNING)  # its messages may contain a payment method's token
    transport = _Transport(answer_seconds)
    client = stripe.StripeClient(
        api_key,
        http_client=transport,
        max_network_retries=0,
        base_addresses={"api": base_url.rstrip("/")} if base_url else {},
    )
    try:
        yield client
    finally:
        await transport.close_async()  # type: ignore[no-untyped-call]


async def answer_within(seconds: float, call: Awaitable[object], shape: type[T]) -> tuple[T, bool]:
    """Returns Stripe's answer, and whether Stripe replayed it from an earlier request under the same key.

    Raises RefusedByStripe, SavedError, Unavailable, Postponed or UnknownOutcome.
    """
    try:
        async with asyncio.timeout(seconds):  # httpx's own timeout starts again with each chunk
            return await _answer(call, shape)
    except TimeoutError as late:
        raise UnknownOutcome("Stripe did not answer in time.") from late


class _Transport(stripe.HTTPXClient):
    """The SDK's HTTP client without a limit on connections: the runners limit what is under way.

    httpx would open 100 and keep 20 of them. The SDK has no setting for that.
    """

    def __init__(self, answer_seconds: float) -> None:
        super().__init__(timeout=httpx.Timeout(answer_seconds, connect=3.0))
        trusted = ssl.create_default_context(cafile=stripe.ca_bundle_path)
        self._client_async = httpx.AsyncClient(limits=httpx.Limits(), verify=trusted)


async def _answer(call: Awaitable[object], shape: type[T]) -> tuple[T, bool]:
    try:
        answer = await call
    except (stripe.CardError, stripe.InvalidRequestError) as error:
        raise RefusedByStripe(error) from None  # Stripe's own message may contain the token
    except stripe.IdempotencyError as error:
        raise KeyInOtherUse from error
    except stripe.StripeError as error:
        raise _meaning_of(error) from error
    except Exception as error:  # the SDK could not read the answer
        raise UnknownOutcome(f"Stripe's answer can't be read: {type(error).__name__}.") from error
    response = getattr(answer, "last_response", None)
    if response is None:
        raise UnknownOutcome("Stripe's answer is not an object.")
    try:
        return msgspec.json.decode(response.body, type=shape), _is_replayed(response.headers)
    except msgspec.MsgspecError as error:
        raise UnknownOutcome(f"Stripe's answer can't be understood: {error}") from error


def _meaning_of(error: stripe.StripeError) -> Exception:
    """The exception for an error that is no refusal."""
    if isinstance(error, stripe.APIConnectionError):
        return _connection_error(error.__cause__)
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return Unavailable("Stripe does not accept the API key.")
    status, code = error.http_status, error.error.code if error.error else None
    if status == 409 or code == "lock_timeout":
        return Postponed("Stripe is working on another request about the same payment.")
    if status is not None and status >= 500 and _is_replayed(error.headers):
        return SavedError()
    if status == 503 or isinstance(error, stripe.RateLimitError):
        sentence = "Stripe is unavailable." if status == 503 else "Stripe asks for a pause."
        return Unavailable(sentence, retry_after=_retry_after(error))
    return UnknownOutcome(f"Stripe answered with an error: {status} {code or ''}".rstrip() + ".")


def _connection_error(cause: BaseException | None) -> Exception:
    if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):  # nothing was sent
        return Unavailable("Stripe can't be reached.")
    return UnknownOutcome(f"The connection to Stripe failed: {type(cause).__name__}.")


def _is_replayed(headers: Any) -> bool:
    return bool(headers) and str(headers.get("idempotent-replayed", "")).lower() == "true"


def _retry_after(error: stripe.StripeError) -> float | None:
    """Returns the seconds in the header. A date is ignored: the runner's own pause applies."""
    value = (error.headers or {}).get("retry-after", "")
    return float(value) if value.isdecimal() else None

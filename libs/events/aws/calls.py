"""Calls of AWS: boto3 blocks, so calls run in threads. Translates boto3's errors."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ParamValidationError,
)

from events.errors import BrokerUnavailable, EventsError, UnknownOutcome, Unroutable

if TYPE_CHECKING:
    from types_boto3_sns import SNSClient
    from types_boto3_sqs import SQSClient

CONCURRENCY: Final = 4
"""Most calls at a time."""

CONFIG: Final = Config(
    connect_timeout=1,
    read_timeout=3,
    retries={"mode": "standard", "total_max_attempts": 2},  # the second after a kept connection was lost
    max_pool_connections=CONCURRENCY,
)

_MISSING: Final = {"NotFound", "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
_NOT_THE_MESSAGES_FAULT: Final = (
    "Throttl",
    "AuthorizationError",
    "AccessDenied",
    "ExpiredToken",
    "RequestExpired",
    "KMS",
)
"""Codes that begin so are not the message's fault."""

T = TypeVar("T")


class Refused(EventsError):
    """AWS will never accept this message."""


class Calls:
    """Makes calls, at most CONCURRENCY at a time. Clients are made at their first call: that takes time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="aws")
        self._making = threading.Lock()

    @cached_property
    def sns(self) -> "SNSClient":
        """Use it only inside a call."""
        with self._making:
            return boto3.client("sns", config=CONFIG)

    @cached_property
    def sqs(self) -> "SQSClient":
        """Use it only inside a call."""
        with self._making:
            return boto3.client("sqs", config=CONFIG)

    async def make(self, call: Callable[[], T]) -> T:
        """Returns the call's result. Cancelling ends the wait, not the call.

        Raises BrokerUnavailable when the call was not carried out, UnknownOutcome when it may have been,
        Unroutable when the topic or queue is missing, Refused when it can never succeed.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except ClientError as error:
            told, about = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
            sender_fault = about.get("HTTPStatusCode", 500) < 500
            raise error_for(told.get("Code", ""), told.get("Message", ""), sender_fault) from error
        except (EndpointConnectionError, ConnectTimeoutError) as error:
            raise BrokerUnavailable(f"{BrokerUnavailable.__doc__} ({error})") from error
        except HTTPClientError as error:
            raise UnknownOutcome(f"{UnknownOutcome.__doc__} ({error})") from error
        except ParamValidationError as error:
            raise Refused(f"{Refused.__doc__} ({error})") from error
        except BotoCoreError as error:  # no credentials, no region
            raise BrokerUnavailable(f"{BrokerUnavailable.__doc__} ({error})") from error

    def close(self) -> None:
        """Ends the threads. Running calls end by their own time limits."""
        self._threads.shutdown(wait=False)


def error_for(code: str, message: str, sender_fault: bool) -> EventsError:
    """Translates an error code of AWS."""
    text = f"{code}: {message}"
    if code in _MISSING:
        return Unroutable(f"{Unroutable.__doc__} ({text})")
    if sender_fault and not code.startswith(_NOT_THE_MESSAGES_FAULT):
        return Refused(f"{Refused.__doc__} ({text})")
    return BrokerUnavailable(f"{BrokerUnavailable.__doc__} ({text})")

"""Calls of AWS: boto3 waits for each answer, so they are made in threads; errors get their meaning here."""

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
"""Most calls under way at a time."""

CONFIG: Final = Config(
    connect_timeout=1,
    read_timeout=3,
    retries={"mode": "standard", "total_max_attempts": 2},  # the second where a kept connection was lost
    max_pool_connections=CONCURRENCY,
)

_MISSING: Final = {"NotFound", "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
_NOT_ITS_FAULT: Final = (
    "Throttl",
    "AuthorizationError",
    "AccessDenied",
    "ExpiredToken",
    "RequestExpired",
    "KMS",
)
"""What such codes begin with says nothing about the message."""

T = TypeVar("T")


class Refused(EventsError):
    """AWS will never take this message as it is."""


class Calls:
    """Makes calls, at most CONCURRENCY at a time. A client is made at its first call: it costs some time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="aws")
        self._making = threading.Lock()

    @cached_property
    def sns(self) -> "SNSClient":
        """To be used inside of calls."""
        with self._making:
            return boto3.client("sns", config=CONFIG)

    @cached_property
    def sqs(self) -> "SQSClient":
        """To be used inside of calls."""
        with self._making:
            return boto3.client("sqs", config=CONFIG)

    async def make(self, call: Callable[[], T]) -> T:
        """What the call returns. Cancelling ends the wait, not the call.

        Raises BrokerUnavailable when it was not done, UnknownOutcome when it may have been, Unroutable when
        the topic or queue is not there, Refused when it will never be done as it is.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except ClientError as error:
            told, about = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
            sender_fault = about.get("HTTPStatusCode", 500) < 500
            raise meaning_of(told.get("Code", ""), told.get("Message", ""), sender_fault) from error
        except (EndpointConnectionError, ConnectTimeoutError) as error:
            raise BrokerUnavailable(f"{BrokerUnavailable.__doc__} ({error})") from error
        except HTTPClientError as error:
            raise UnknownOutcome(f"{UnknownOutcome.__doc__} ({error})") from error
        except ParamValidationError as error:
            raise Refused(f"{Refused.__doc__} ({error})") from error
        except BotoCoreError as error:  # no credentials, no region
            raise BrokerUnavailable(f"{BrokerUnavailable.__doc__} ({error})") from error

    def close(self) -> None:
        """No more calls. Those under way end by themselves, by their deadlines."""
        self._threads.shutdown(wait=False)


def meaning_of(code: str, message: str, sender_fault: bool) -> EventsError:
    """The error that stands for AWS's."""
    text = f"{code}: {message}"
    if code in _MISSING:
        return Unroutable(f"{Unroutable.__doc__} ({text})")
    if sender_fault and not code.startswith(_NOT_ITS_FAULT):
        return Refused(f"{Refused.__doc__} ({text})")
    return BrokerUnavailable(f"{BrokerUnavailable.__doc__} ({text})")

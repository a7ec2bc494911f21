"""The functions as Lambda runs them: each handler is a process under AWS's own runtime client.

Runtime API, queue poller and schedule are local, and the test triggers them.
"""

import asyncio
import base64
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import Any, Final, Self

from events.contracts import type_of
from tests.aws_server import Cloud
from tests.e2e.runtime_api import RuntimeApi, runtime_api
from tests.sqs_poller import Poller

SERVICES: Final = ("order", "invoice", "billing", "shipment", "email")
BINDINGS: Final = {
    service: [type_of(event) for event in import_module(f"services.{service}.handlers").HANDLERS]
    for service in SERVICES
}
SCHEDULED: Final = {"orderflow": "leftovers"}
"""The event that the template's schedules send."""

Json = dict[str, Any]


async def start(service: str, runtime_api: str, environment: Mapping[str, str]) -> Process:
    """A container of the service's function: its process, under AWS's runtime client."""
    inherited = {
        name: value for name, value in os.environ.items() if name.startswith(("AWS", "PATH", "HOME"))
    }
    own = {
        "PYTHONPATH": os.pathsep.join(("libs", ".")),
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "DATABASE_POOL": "2",
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "awslambdaric", f"services.{service}.aws_lambda.handler"),
        env={**inherited, **environment, **own},
    )


class Functions:
    """The functions of a whole system, and the pollers that invoke them."""

    def __init__(self, cloud: Cloud, environment: Mapping[str, Mapping[str, str]]) -> None:
        self.cloud = cloud
        self.apis: dict[str, RuntimeApi] = {}
        self._environment = environment
        self._pollers: dict[str, Poller] = {}
        self._processes: dict[str, Process] = {}
        self._dead_letters: dict[str, str] = {}
        """Addresses of the dead-letter queues as deployed. A test may delete a queue later."""
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for service in SERVICES:
            self.apis[service] = self._open.enter_context(runtime_api())
            self._pollers[service] = self._poller(service)
            self._dead_letters[service] = self.cloud.address_of(f"{service}-dead")
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            await process.wait()
        await self._open.aclose()

    async def _start(self, service: str) -> None:
        environment = {
            **self._environment[service],
            "TOPIC_ARN": self.cloud.topic_arn,
            "DEAD_LETTER_QUEUE_URL": self._dead_letters[service],
        }
        self._processes[service] = await start(service, self.apis[service].address, environment)

    async def invoke(self, service: str, event: object) -> Any:
        """The answer of the service's function, whose container is started if there is none."""
        if service not in self._processes:
            await self._start(service)
        return await asyncio.to_thread(self.apis[service].invoke, event)

    async def poll(self, service: str) -> int:
        """Handles the queue's next batch, if there is one. Returns the number of messages that succeeded."""
        return await self._pollers[service].poll()

    async def settle(self) -> None:
        """Polls every queue until none has a message to hand out."""
        while any([await self.poll(service) for service in SERVICES]):
            pass

    def _poller(self, service: str) -> Poller:
        async def invoke(event: Mapping[str, Any]) -> Any:
            return await self.invoke(service, event)

        return Poller(self.cloud, service, invoke)


@asynccontextmanager
async def functions(cloud: Cloud, environment: Mapping[str, Mapping[str, str]]) -> AsyncIterator[Functions]:
    """The functions, until the context ends."""
    async with Functions(cloud, environment) as running:
        yield running


def http_api(
    method: str,
    path: str,
    body: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    in_base64: bool = False,
) -> Json:
    """A request in the form of API Gateway's HTTP API (payload format 2.0).

    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
    """
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "tag=a&tag=b",
        "cookies": ["session=1", "theme=dark"],
        "headers": {"host": "api.example.com", "x-forwarded-proto": "https", **(headers or {})},
        "queryStringParameters": {"tag": "a,b"},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "api",
            "domainName": "api.example.com",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "tests",
            },
            "requestId": "id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "12/Mar/2026:19:03:58 +0000",
            "timeEpoch": 1583348638390,
        },
        "body": base64.b64encode(body.encode()).decode() if in_base64 else body,
        "isBase64Encoded": in_base64,
    }


def rest_api(
    method: str, path: str, body: str | None = None, *, headers: Mapping[str, str] | None = None
) -> Json:
    """A request in the form of API Gateway's REST API (proxy integration).

    https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
    """
    sent = {"Host": "api.example.com", "X-Forwarded-Proto": "https", **(headers or {})}
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": sent,
        "multiValueHeaders": {name: [value] for name, value in sent.items()},
        "queryStringParameters": {"tag": "b"},
        "multiValueQueryStringParameters": {"tag": ["a", "b"]},
        "pathParameters": {"proxy": path.removeprefix("/")},
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "httpMethod": method,
            "identity": {"sourceIp": "192.0.2.1", "userAgent": "tests"},
            "path": f"/prod{path}",
            "protocol": "HTTP/1.1",
            "requestId": "id",
            "resourcePath": "/{proxy+}",
            "stage": "prod",
        },
        "body": body,
        "isBase64Encoded": False,
    }


def queue_event(*bodies: str, receives: int = 1) -> Json:
    """Messages in the form of Lambda's SQS event.

    https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html#example-standard-queue-message-event
    """
    return {
        "Records": [
            {
                "messageId": f"message-{index}",
                "receiptHandle": f"receipt-{index}",
                "body": body,
                "attributes": {
                    "ApproximateReceiveCount": str(receives),
                    "SentTimestamp": "1545082649183",
                    "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                    "ApproximateFirstReceiveTimestamp": "1545082649185",
                },
                "messageAttributes": {},
                "md5OfBody": "098f6bcd4621d373cade4e832627b4f6",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:orderflow",
                "awsRegion": "us-east-1",
            }
            for index, body in enumerate(bodies)
        ]
    }


def enveloped(body: str, event_type: str) -> str:
    """A message as SNS wraps it without raw message delivery.

    https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
    """
    return json.dumps(
        {
            "Type": "Notification",
            "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
            "TopicArn": "arn:aws:sns:us-east-1:123456789012:OrderEvents",
            "Message": body,
            "Timestamp": "2026-11-22T09:30:00.000Z",
            "SignatureVersion": "1",
            "Signature": "c2lnbmF0dXJl",
            "SigningCertURL": "https://sns.us-east-1.amazonaws.com/certificate.pem",
            "UnsubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe",
            "MessageAttributes": {"type": {"Type": "String", "Value": event_type}},
        }
    )

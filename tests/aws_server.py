"""moto's server on a free port, for SNS, SQS and Secrets Manager.

Unlike AWS it is consistent at once, loses nothing, never throttles, and checks no permissions.
"""

import io
import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from types_boto3_sns import SNSClient
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.type_defs import MessageTypeDef

REGION: Final = "us-east-1"
CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}


class _OneAtATime:
    """Serves one request at a time: moto's queues lose a message that is sent while another is deleted.

    A long poll must not block the others, so it waits for a moment after its turn.
    """

    def __init__(self, application: Callable[[Any, Any], Iterable[bytes]]) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        waits = environ.get("HTTP_X_AMZ_TARGET") == "AmazonSQS.ReceiveMessage" and _take_wait_out(environ)
        with self._lock:
            answer = list(self._application(environ, start_response))
        if waits and b'"Messages"' not in b"".join(answer):
            time.sleep(0.05)
        return answer


def _take_wait_out(environ: Any) -> bool:
    request = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    waits = bool(request.pop("WaitTimeSeconds", 0))
    body = json.dumps(request).encode()
    environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
    return waits


class _Quiet(MotoRequestHandler):
    def log_request(self, *_: object) -> None:
        """Logs no request."""


@contextmanager
def aws_server() -> Iterator[str]:
    """The server's address, for AWS_ENDPOINT_URL."""
    application = _OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Cloud:
    """A topic, and for each service a queue with its dead-letter queue, as the template has them."""

    def __init__(
        self, endpoint: str, prefix: str, *, visibility_seconds: int, max_receives: int = 1000
    ) -> None:
        self.endpoint = endpoint
        self.prefix = prefix
        self.topic_arn = ""
        self._visibility_seconds = visibility_seconds
        self._max_receives = max_receives
        session = boto3.Session("testing", "testing", region_name=REGION)
        self.sns: SNSClient = session.client("sns", endpoint_url=endpoint)
        self.sqs: SQSClient = session.client("sqs", endpoint_url=endpoint)

    def declare(self, bindings: Mapping[str, Collection[str]]) -> None:
        """Declares the topology, as `sam deploy` does."""
        self.topic_arn = self.sns.create_topic(Name=f"{self.prefix}OrderEvents")["TopicArn"]
        for service, types in bindings.items():
            dead = self._arn_of(self.sqs.create_queue(QueueName=f"{self.prefix}{service}-dead")["QueueUrl"])
            redrive = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": self._max_receives})
            attributes = {"VisibilityTimeout": str(self._visibility_seconds), "RedrivePolicy": redrive}
            queue = self.sqs.create_queue(QueueName=f"{self.prefix}{service}", Attributes=attributes)  # type: ignore[arg-type]
            self.sns.subscribe(
                TopicArn=self.topic_arn,
                Protocol="sqs",
                Endpoint=self._arn_of(queue["QueueUrl"]),
                Attributes={
                    "RawMessageDelivery": "true",
                    "FilterPolicyScope": "MessageAttributes",
                    "FilterPolicy": json.dumps({"type": sorted(types)}),
                },
            )

    def address_of(self, queue: str) -> str:
        """The address of a queue, `<service>` or `<service>-dead`."""
        return self.sqs.get_queue_url(QueueName=f"{self.prefix}{queue}")["QueueUrl"]

    def take(self, address: str) -> "list[MessageTypeDef]":
        """Takes up to 10 messages out of a queue, with their attributes."""
        answer = self.sqs.receive_message(
            QueueUrl=address, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        messages = answer.get("Messages", [])
        for message in messages:
            self.sqs.delete_message(QueueUrl=address, ReceiptHandle=message["ReceiptHandle"])
        return messages

    def dead(self, service: str) -> int:
        """How many dead letters a service has."""
        answer = self.sqs.get_queue_attributes(
            QueueUrl=self.address_of(f"{service}-dead"), AttributeNames=["ApproximateNumberOfMessages"]
        )
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def redrive(self, service: str) -> None:
        """Moves a service's dead letters back into its queue as StartMessageMoveTask does, which moto lacks.

        They keep body and attributes, and get a new identifier and count of receives.
        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
        """
        for message in self.take(self.address_of(f"{service}-dead")):
            self.sqs.send_message(
                QueueUrl=self.address_of(service),
                MessageBody=message["Body"],
                MessageAttributes=message.get("MessageAttributes", {}),
            )

    def remove(self) -> None:
        """Deletes topic and queues."""
        self.sns.delete_topic(TopicArn=self.topic_arn)
        for address in self.sqs.list_queues(QueueNamePrefix=self.prefix).get("QueueUrls", []):
            self.sqs.delete_queue(QueueUrl=address)

    def _arn_of(self, address: str) -> str:
        name = address.rpartition("/")[2]
        return f"arn:aws:sqs:{REGION}:123456789012:{name}"

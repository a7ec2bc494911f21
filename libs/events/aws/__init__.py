"""The AWS transport: SNS carries the messages to SQS queues, and Lambda hands them over from there.

It keeps the promises of `events.bus.Bus`, with one exception: SNS also confirms messages without a
subscriber, so `publish` never raises Unroutable for that. Subscriptions are part of the deployment: a test
compares the template's filter policies with the handler tables, and a published message stays in the outbox,
to be sent again.

`AWSBus` publishes, and subscribes for services in processes of their own. In a Lambda function `Invocations`
handles the messages of one invocation at a time, and nothing runs between two of them. Only this package
knows boto3 and the shapes of Lambda's events.
"""

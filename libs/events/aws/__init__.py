"""The AWS transport: SNS carries the messages to SQS queues, and Lambda hands them over from there.

It keeps the promises of `events.bus.Bus`, with one exception: SNS confirms also what nobody is subscribed to.
What stands in for Unroutable is that subscriptions are part of the deployment: a test holds the template's
filter policies against the handler tables, and a published message stays in the outbox, to be sent again.

`AWSBus` publishes, and subscribes for services in processes of their own. In a function Lambda receives, and
`Invocations` does what it hands over, one invocation at a time, so that between two of them nothing runs.
Only this package knows boto3 and the shapes of Lambda's events.
"""

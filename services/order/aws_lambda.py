"""The order service as a Lambda function: its API behind API Gateway, and its queue."""

from typing import Final

from chassis.loading import without_garbage_collection

with without_garbage_collection():
    from chassis.function import Function
    from services.order.main import SERVICE

handler: Final = Function(SERVICE)

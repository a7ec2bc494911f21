"""The billing service as a Lambda function: its queue."""

from typing import Final

from chassis.loading import without_garbage_collection

with without_garbage_collection():
    from chassis.function import Function
    from services.billing.main import SERVICE

handler: Final = Function(SERVICE)

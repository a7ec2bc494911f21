"""Shipment as a Lambda function, which its queue invokes."""

from typing import Final

from chassis.loading import without_garbage_collection

with without_garbage_collection():
    from chassis.function import Function
    from services.shipment.main import SERVICE

handler: Final = Function(SERVICE)

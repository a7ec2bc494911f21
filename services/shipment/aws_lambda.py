"""The shipment service as a Lambda function: its queue."""

from typing import Final

from chassis.function import Function
from services.shipment.main import SERVICE

handler: Final = Function(SERVICE)

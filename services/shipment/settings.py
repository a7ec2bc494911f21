"""What the shipment service needs to know."""

from typing import Annotated

from pydantic import Field

from chassis.settings import ServiceSettings


class ShipmentSettings(ServiceSettings):
    """The settings of every service, and the simulated carrier's."""

    origin_country: Annotated[str, Field(pattern="^[A-Z]{2}$")] = "BR"
    """Where parcels are posted (ISO 3166-1 alpha-2): the end of new tracking numbers."""

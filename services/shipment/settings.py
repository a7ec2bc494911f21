"""The settings of shipment: those of every service, and the simulated carrier's."""

from typing import Annotated

from pydantic import Field, SecretStr

from chassis.settings import DatabaseUrl, ServiceSettings


class ShipmentSettings(ServiceSettings):
    """Read from the environment."""

    carrier_database_url: Annotated[DatabaseUrl, Field(repr=False)]
    """The simulated carrier's bookings, with its own role `<database>_carrier`."""
    carrier_database_password: SecretStr | None = None
    origin_country: Annotated[str, Field(pattern="^[A-Z]{2}$")] = "BR"
    """The country where parcels are posted (ISO 3166-1 alpha-2): the end of new tracking numbers."""

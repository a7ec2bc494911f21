"""The settings of the order service."""

from chassis.settings import Days, ServiceSettings


class OrderSettings(ServiceSettings):
    """The settings of every service, and how long an idempotency key is kept."""

    idempotency_key_days: Days = 30
    """Within this time, a repeated request with the same key returns the order that the first one made."""

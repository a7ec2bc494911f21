"""The errors of `events`. The first line of an error's docstring is its message."""


class EventsError(Exception):
    """Something went wrong between the services."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or str(self.__doc__).partition("\n")[0])


class Unavailable(EventsError):
    """A system that this work needs does not answer now.

    The work is repeated after a pause; the failure does not count against it. `retry_after` is the least
    pause in seconds, if the other side named one.
    """

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DatabaseUnavailable(Unavailable):
    """The database can't take this transaction now."""

    # server_wide: the server reports a fault of its own (full, read-only, shutting down)
    def __init__(
        self, message: str | None = None, *, retry_after: float | None = None, server_wide: bool = False
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.server_wide = server_wide


class Aborted(EventsError):
    """A statement failed and its error was swallowed: PostgreSQL has rolled the transaction back."""


class AssumptionFailed(EventsError):
    """A row was not as assumed: the work is repeated in a transaction that waits for each answer."""


class BrokerUnavailable(Unavailable):
    """The broker can't take this message now."""


class Postponed(EventsError):
    """The other side does not accept this piece of work now; it accepts others.

    `retry_after` is the least pause in seconds, if the other side named one. `perhaps_all`: the refusal may
    concern every piece of work, so several in a row are an outage.
    """

    def __init__(
        self, message: str | None = None, *, retry_after: float | None = None, perhaps_all: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.perhaps_all = perhaps_all


class UnknownOutcome(EventsError):
    """It is not known whether the work was done. It is asked again with the same key."""


class NotAsked(UnknownOutcome):
    """It is not known whether the work was done, and the other side is not asked at the moment.

    It says nothing about the other side: it neither begins nor ends an outage.
    """


class Unroutable(Postponed):
    """No queue is bound for this message: the broker's topology is incomplete. It will be sent again."""


class Reject(EventsError):  # an instruction to the worker, as handlers read it
    """The event can never be handled: it is parked as dead at once."""


class Undecodable(EventsError):
    """The message is not a CloudEvents batch."""

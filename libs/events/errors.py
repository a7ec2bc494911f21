"""What can go wrong between services. An error's docstring is its message."""


class EventsError(Exception):
    """Something went wrong between the services."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class Unavailable(EventsError):
    """What is needed for this work does not answer now.

    Nothing was decided: the work is repeated after a pause and the failure is not counted against it.
    `retry_after` is the least pause in seconds, when the other side named one.
    """

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DatabaseUnavailable(Unavailable):
    """The database can't take this transaction now."""

    # server_wide: the server says so of itself (full, read-only, shutting down): no transaction is to blame
    def __init__(
        self, message: str | None = None, *, retry_after: float | None = None, server_wide: bool = False
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.server_wide = server_wide


class Aborted(EventsError):
    """A statement failed and its error was swallowed: PostgreSQL has rolled the transaction back."""


class AssumptionFailed(EventsError):
    """Not every row was what it is on an ordinary day: the work is done again, waiting for each answer."""


class BrokerUnavailable(Unavailable):
    """The broker can't take this message now."""


class Postponed(EventsError):
    """The other side does not take this piece of work now; it takes others.

    `retry_after` is the least pause in seconds, when the other side named one. `perhaps_all`: the refusal may
    concern every piece of work, so several in a row are an outage.
    """

    def __init__(
        self, message: str | None = None, *, retry_after: float | None = None, perhaps_all: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.perhaps_all = perhaps_all


class UnknownOutcome(EventsError):
    """It is not known whether the work was done: it is asked again with the same key."""


class Unroutable(Postponed):
    """No queue is bound for this message: the broker's topology is not complete. It will be sent again."""


class Reject(EventsError):  # an instruction to the worker, as handlers read it
    """The event can never be handled: it is parked as dead at once."""


class Undecodable(EventsError):
    """The message is not a CloudEvents batch."""

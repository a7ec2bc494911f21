"""The mail server: its address, and how long it may take for each answer."""

from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The longest waits for a mail server, in seconds: the shortest that RFC 5321, 4.5.3.2 allows."""

    connect: float = 30.0
    """For each of the server's addresses. The RFC does not mention it."""
    opening: float = 300.0
    """For the greeting (4.5.3.2.1), EHLO, STARTTLS and AUTH together."""
    mail: float = 300.0
    """4.5.3.2.2"""
    rcpt: float = 300.0
    """4.5.3.2.3"""
    data: float = 120.0
    """For the answer to DATA (4.5.3.2.4)."""
    content: float = 780.0
    """For the mail as one block (4.5.3.2.5: 3 minutes) and the answer to its final dot (4.5.3.2.6: 10)."""
    reset: float = 10.0
    """For the answer to RSET. Without one the connection is closed, and no mail fails."""


RFC_5321: Final = Timeouts()


class InvalidServer(ValueError):
    """A mail server is smtp[s]://[user:password@]host[:port], and smtp may have ?starttls."""


@dataclass(frozen=True, slots=True)
class Server:
    """A mail server's address, with the account that uses it."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    """The connection is TLS from its beginning."""
    starttls: bool = False
    """The connection becomes TLS before any mail, or is not used."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Reads `smtp[s]://[user:password@]host[:port][?starttls]`. Raises InvalidServer, without the URL."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise InvalidServer(InvalidServer.__doc__) from None
        options = parse_qsl(parts.query, keep_blank_values=True)
        tls, starttls = parts.scheme == "smtps", options == [("starttls", "")]
        if (
            parts.scheme not in ("smtp", "smtps")
            or not parts.hostname
            or parts.path not in ("", "/")
            or (options and not starttls)
            or (tls and starttls)
            or (parts.username is None) != (parts.password is None)
        ):
            raise InvalidServer(InvalidServer.__doc__)
        return cls(
            host=parts.hostname,
            port=port or (465 if tls else 587 if starttls else 25),
            username=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
            tls=tls,
            starttls=starttls,
        )

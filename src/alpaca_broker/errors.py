"""Everything the broker raises on purpose, sorted by whose fault it is.

    BrokerError
     ├ ConfigError            the operator's: a setting is wrong or missing
     ├ UsageError             our caller's: the library was used in a way it does not allow
     ├ RemoteProtocolError    Alpaca's: it broke its own protocol
     ├ UpstreamRefused        Alpaca said no, with a code
     ├ UpstreamUnavailable    Alpaca could not be reached, or did not answer in time
     └ BusError               Redis': unreachable, or it refused a command

Errors keep their facts as fields and build their text in `__str__`. No secret ever enters a field.
"""

from __future__ import annotations

from ssl import SSLError


class BrokerError(Exception):
    """The base of every error that the broker raises on purpose."""


class ConfigError(BrokerError):
    """A setting is wrong or missing; the text names the variable and what to change."""

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else problems
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class UsageError(BrokerError):
    """The library was called in a way that it does not allow."""


class RemoteProtocolError(BrokerError):
    """Alpaca sent something that its protocol does not allow here."""

    def __init__(self, state: str, message: object) -> None:
        self.state, self.message = state, message
        super().__init__(state, message)

    def __str__(self) -> str:
        return f"unexpected {self.message!r:.300} while {self.state}"


class UpstreamRefused(BrokerError):
    """Alpaca refused, with one of its own codes or, where `http` is set, an HTTP status."""

    def __init__(self, code: int, text: str, *, http: bool = False) -> None:
        self.code, self.text, self.http = code, text, http
        super().__init__(code, text)

    @property
    def too_many_requests(self) -> bool:
        """Whether REST refused because it was asked too often: later it will answer."""
        return self.http and self.code == 429

    def __str__(self) -> str:
        if not self.code:
            return self.text
        return f"{self.text} ({'HTTP ' if self.http else ''}{self.code})"


class UpstreamUnavailable(BrokerError):
    """Alpaca could not be reached, or did not answer in time."""

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(url, reason)

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}"


class BusError(BrokerError):
    """Redis is unreachable, or refused a command."""

    def __init__(self, where: str, reason: str) -> None:
        self.where, self.reason = where, reason
        super().__init__(where, reason)

    def __str__(self) -> str:
        return f"Redis at {self.where}: {self.reason}"


def tls_refusal(error: BaseException | None) -> SSLError | None:
    """Why TLS failed, where it is that: libraries say so only in what their error came from."""
    while error is not None and not isinstance(error, SSLError):
        error = error.__cause__ or error.__context__
    return error


def first(group: BaseExceptionGroup[BrokerError]) -> BrokerError:
    """The first of several errors: the others are its echo."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, BrokerError)
    return error

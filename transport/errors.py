"""What can go wrong between processes that talk to each other: one type per meaning, each text a sentence for a person.

Types that belong to one thing only, such as a key file or an address, stand beside it.
"""

from __future__ import annotations


class TransportError(RuntimeError):
    """Processes cannot talk to each other: a wrong address, key, token or file. The text says what to do."""


class ClientError(TransportError):
    """Base of every error that the client raises on purpose."""


class MasterUnreachable(ClientError):
    """There is no connection to the master, or (MasterSilent) no answer.

    The request may have been carried out; every request may be repeated.
    """


class MasterSilent(MasterUnreachable):
    """There is a connection, but no answer."""


class KeyRefused(ClientError):
    """The two sides do not accept each other's keys. Trying again changes nothing."""


class VersionMismatch(ClientError):
    """The master speaks another version of the protocol."""


class RequestRefused(ClientError):
    """The master, or this side on its behalf, will not do it. code: a word for programs, as in `Refused`."""

    def __init__(self, code: str, error: str) -> None:
        super().__init__(error)
        self.code = code


class WaitTimeout(ClientError, TimeoutError):
    """What was waited for has not happened yet; it goes on without us."""


class ClientClosed(ClientError):
    """The client was closed, before or during the call."""

"""The errors that people see when processes cannot talk to each other."""

from __future__ import annotations


class TransportError(RuntimeError):
    """Processes cannot talk to each other: a wrong address, key, token or file. The text says what to do."""

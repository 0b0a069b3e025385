"""Numbers and lists as people say them."""

from __future__ import annotations

from collections.abc import Sequence

MOST_LISTED = 3


def counted(number: int, thing: str, things: str = "") -> str:
    """`1 node`, `2,000 nodes`; things: the plural, where it is not `thing` and an s."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def os_error_words(error: OSError) -> str:
    """`No such file or directory: /a/b`: what the system says, and of which file."""
    said = error.strerror or str(error)
    return f"{said}: {error.filename}" if error.filename is not None else said


def listed(names: Sequence[str], most: int = MOST_LISTED) -> str:
    """`a`, `a, b`, `a, b, c and 4 more`: at most `most` of them by name."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")

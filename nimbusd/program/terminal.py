r"""The border between this program's words and a terminal.

Jobs, nodes, components, files and errors bring text along. What could take hold of a terminal, reorder a line or end a
program that prints is shown as `\u001b`. JSON means the same by that, so that programs still read what was there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"  # what turns the direction of writing, or ends a line
    "\ud800-\udfff]"  # bytes of file names that are not UTF-8
)


def visible(text: str) -> str:
    """`text` with every unsafe character written out."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class VisibleStream:
    """A stream of text in which nothing unsafe is written. rich_proxied_file: the stream itself.

    Rich writes to that: its colors are escapes, and `nimbusd.cli.console` looks at all text before it has any.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str | bytes) -> int:
        """Write `text`, unsafe characters written out. Click hands over what shells complete as bytes."""
        words = text.decode(errors="replace") if isinstance(text, bytes) else text
        return self.rich_proxied_file.write(visible(words))

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each line like `write`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # bytes would pass by
            raise AttributeError(name)
        return getattr(self.rich_proxied_file, name)


def guard_output() -> None:
    """Guard standard output and standard error: from now on, nothing unsafe is written to them by this process."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, VisibleStream):
            setattr(sys, name, cast("TextIO", VisibleStream(stream)))


def write_raw(stream: TextIO, text: str) -> None:
    """Write escapes of our own, such as a carriage return."""
    raw: TextIO = getattr(stream, "rich_proxied_file", stream)
    raw.write(text)
    raw.flush()

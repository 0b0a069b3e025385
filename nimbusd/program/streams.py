"""Standard input, output and error as a program finds them: closed, full, broken, or a terminal.

A closed one is opened on /dev/null first of all: else the next file or socket would take its number, and whatever is
written for people would go there, or a compute worker inherit it as its own.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

_NARROWEST = 20


class StreamLost(Exception):
    """Standard output takes nothing more. Not an OSError, lest it be taken for one of another file."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to standard output: {error.strerror}")
        self.broken = error.errno == errno.EPIPE
        """True where its reader has gone, as `head` does when it has enough."""


class _Output(io.TextIOWrapper):
    """Standard output, whose errors are StreamLost."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise StreamLost(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise StreamLost(error) from error


class _Diagnostics(io.TextIOWrapper):
    """Standard error. A failure to write there ends nothing."""

    def write(self, text: str, /) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


class Lasting(io.TextIOBase):
    """A stream for progress, which must not end the work: when it takes nothing more, `lost` is called once with the
    reason, and the rest is dropped.

    rich_proxied_file: the same for the stream that Rich writes its own escapes to, see `nimbusd.program.terminal`.
    """

    def __init__(self, stream: TextIO, lost: Callable[[str], None]) -> None:
        self._stream = stream
        self._lost = lost
        self._open = True
        raw = getattr(stream, "rich_proxied_file", stream)
        self.rich_proxied_file: Lasting = self if raw is stream else Lasting(raw, self._gone)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's."""
        return self._stream.encoding

    def isatty(self) -> bool:
        return self._open and self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str, /) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], object]) -> None:
        if not self._open:
            return
        try:
            act()
        except (OSError, StreamLost) as error:
            self._gone(str(error))

    def _gone(self, why: str) -> None:
        if self._open:
            self._open = False
            discard_output()
            self._lost(why)


def open_standard_streams() -> None:
    """Open all three of them, and mend the environment that they depend on. To be called before anything else."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number, inheritable=True)
            if null != number:
                os.close(null)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    output, diagnostics = (io.BufferedWriter(io.FileIO(number, "w", closefd=False)) for number in (1, 2))
    sys.stdout = _Output(output, _encoding(sys.stdout), "replace", line_buffering=os.isatty(1))
    sys.stderr = _Diagnostics(diagnostics, _encoding(sys.stderr), "backslashreplace", line_buffering=True)
    for name in ("COLUMNS", "LINES"):  # rich and click trust them
        if (text := os.environ.get(name)) is not None and not (text.isdecimal() and int(text) >= _NARROWEST):
            del os.environ[name]


def discard_output() -> None:
    """Send what standard output still holds, and all that comes, nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a test's stand-in is no file
        number = sys.stdout.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


def is_plain() -> bool:
    """The terminal, if there is one, understands no escape sequences."""
    return os.environ.get("TERM", "").lower() in ("", "dumb", "unknown")


def _encoding(stream: TextIO | None) -> str:
    return "utf-8" if stream is None else stream.encoding

"""The consoles that commands print to: a terminal with what it can show, files and programs whole and plain.

Nothing unsafe is in what is shown: see `nimbusd.program.terminal`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TextIO

from rich import console
from rich.segment import Segment

from nimbusd.program.streams import is_plain
from nimbusd.program.terminal import visible

ENDLESS = 1_000_000
"""Cells of a line that is not for a terminal: nothing is wrapped or cut there."""


class Console(console.Console):
    """A console whose own escapes (colors, cursor) are the only ones."""

    def render(
        self, renderable: console.RenderableType, options: console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as Rich does, with unsafe characters written out."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def make_console(*, stderr: bool = False, file: TextIO | None = None, soft_wrap: bool = False) -> Console:
    """A console on standard output or error, or on `file`. It is a terminal only if it understands escape sequences."""
    stream = file or (sys.stderr if stderr else sys.stdout)
    terminal = stream.isatty()
    return Console(
        stderr=stderr,
        file=file,
        highlight=False,
        soft_wrap=soft_wrap,
        width=None if terminal else ENDLESS,
        force_terminal=False if terminal and is_plain() else None,
    )

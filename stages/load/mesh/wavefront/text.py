"""The text of Wavefront files (.obj, .mtl): statements, and the names of files in them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from nimbusd.stages.errors import AssetError

_NUMBERS = ("v", "vt", "vn", "vp", "f", "fo", "s")
"""Statements after which `#` starts a comment; elsewhere it may be part of a name."""
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def statements(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, first word, rest) of every statement, continuation lines joined, comments left out.

    Raises AssetError for a file that cannot be read. Text is UTF-8, or what its byte order mark says.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AssetError(f"mesh file {path} cannot be read: {error.strerror or error}.") from error
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    pending, start = "", 0
    for number, line in enumerate(content.decode(encoding, "replace").splitlines(), start=1):
        start = start if pending else number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        words = (pending + line).split(None, 1)
        pending = ""
        if words and not words[0].startswith("#"):
            rest = words[1].strip() if len(words) > 1 else ""
            yield start, words[0], rest.partition("#")[0].rstrip() if words[0] in _NUMBERS else rest


def libraries(rest: str, folder: Path) -> list[Path]:
    """The files of an `mtllib` line: several, or one whose name has spaces."""
    text = rest.replace("\\", "/")
    if not text:
        return []
    if (folder / text).is_file():
        return [folder / text]
    return [folder / name for name in re.split(r"(?<=\.mtl)\s+", text, flags=re.IGNORECASE)]

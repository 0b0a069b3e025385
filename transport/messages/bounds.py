"""Bounds of a message's fields, in size, length and letters: `Annotated[int, Range(0, 10)]`.

A message outside the bounds of its type is malformed: it is dropped and counted before anybody acts on it. So what
is past the codec fits into a 64-bit database, adds up without overflow, and can be shown on a screen.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Protocol, TypeAlias


class Bound(Protocol):
    """One condition on a value whose type is right already."""

    @property
    def words(self) -> str:
        """The expected values, to follow the word `expected`."""

    def broken(self, value: str, name: Callable[[str, object], str]) -> str:
        """A Python expression that is true if the variable `value` is out of bounds.

        name: gives an object a name that the expression may use.
        """


@dataclass(frozen=True, slots=True)
class Range:
    """A number from `low` to `high`, both allowed."""

    low: float
    high: float

    @property
    def words(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"

    def broken(self, value: str, name: Callable[[str, object], str]) -> str:
        return f"not {self.low!r} <= {value} <= {self.high!r}"


@dataclass(frozen=True, slots=True)
class Length:
    """At most `most` characters, items of a list or entries of a map, and at least `least`."""

    most: int
    least: int = 0

    @property
    def words(self) -> str:
        return f"a length from {self.least} to {self.most}" if self.least else f"a length of at most {self.most}"

    def broken(self, value: str, name: Callable[[str, object], str]) -> str:
        return f"not {self.least} <= len({value}) <= {self.most}" if self.least else f"len({value}) > {self.most}"


@dataclass(frozen=True, slots=True)
class Printable:
    """One line of text: no control characters, no escapes of terminals, no characters of no meaning."""

    words: str = "text without control characters"

    def broken(self, value: str, name: Callable[[str, object], str]) -> str:
        return f"not {value}.isprintable()"


@dataclass(frozen=True, slots=True)
class Letters:
    """Text that the whole of `pattern` describes. words: the same for people."""

    pattern: str
    words: str

    def broken(self, value: str, name: Callable[[str, object], str]) -> str:
        return f"{name('matches', re.compile(self.pattern).fullmatch)}({value}) is None"


@dataclass(frozen=True, slots=True)
class Keys:
    """A map whose keys, which are text, keep to `bound`."""

    bound: Bound
    words: str = field(default="shorter or plainer keys", init=False)

    def broken(self, value: str, name: Callable[[str, object], str]) -> str:
        return f"any({self.bound.broken('key', name)} for key in {value})"


MOST_INT = (1 << 63) - 1
"""The largest integer that a database can hold."""
MOST_BYTES = 1 << 40
"""Of one piece; eight million pieces of that size still add up to less than MOST_INT."""
MOST_FRAMES = 1 << 30
MOST_FOLDER = 255
"""Characters of a folder's name."""
MOST_SECONDS = 1e8
"""Three years: more than any episode takes, and products of two such times are finite."""
MOST_REASON = 200
"""Characters of a word or two, such as a reason."""
MOST_DETAIL = 2_000
"""Characters of a sentence about what went wrong."""
MOST_EVIDENCE = 16_000
"""Characters of stacks and last words."""
SLACK = 100
"""Characters for the note that something was left out, beyond the two above."""

Id: TypeAlias = Annotated[int, Range(0, MOST_INT)]
"""Of a request or a lease."""
Index: TypeAlias = Annotated[int, Range(0, (1 << 31) - 1)]
"""Of an episode in its scene; also the number of an attempt, or of slots."""
Bytes: TypeAlias = Annotated[int, Range(0, 1 << 53)]
"""Of memory."""
Seconds: TypeAlias = Annotated[float, Range(0, MOST_SECONDS)]
Rate: TypeAlias = Annotated[float, Range(0, 1e15)]
"""Per second, or a share."""
Word: TypeAlias = Annotated[str, Length(200), Printable()]
"""A name, a version, a hash, a device: one short line."""
NodeName: TypeAlias = Annotated[str, Length(100, least=1), Printable()]
Place: TypeAlias = Annotated[str, Length(1_024)]
"""The name of a job or scene. Whoever gets it compares it with those that are known."""
Reason: TypeAlias = Annotated[str, Length(MOST_REASON)]
Sentence: TypeAlias = Annotated[str, Length(MOST_DETAIL + SLACK)]
"""Text of several lines that a program made."""
Evidence: TypeAlias = Annotated[str, Length(MOST_EVIDENCE + SLACK)]
Digest: TypeAlias = Annotated[str, Letters("[0-9a-f]{64}", "64 hexadecimal digits")]
Timings: TypeAlias = Annotated[dict[str, Seconds], Length(64), Keys(Length(100))]
"""Stage → seconds."""
Packages: TypeAlias = Annotated[dict[str, Word], Length(2_000), Keys(Length(200))]
"""Name of a package → its version."""


def cut(text: str, most: int) -> str:
    """`text` in at most `most` + SLACK characters: its beginning and its end, which say the most, and what is missing.

    What was cut once stays as it is.
    """
    if len(text) <= most + SLACK:
        return text
    left = most // 4
    missing = len(text) - most
    return f"{text[:left]}\n… {missing} characters were left out …\n{text[len(text) - (most - left) :]}"


def plain_text(text: str, most: int) -> str:
    """`text`, cut, without what could steer a terminal.

    Control characters other than line breaks and tabs, and surrogates, which bytes that are no UTF-8 may have been
    decoded to, become question marks.
    """
    return cut(text, most).translate(_PLAIN)


def plain_line(text: str, most: int) -> str:
    """`text` as one printable line of at most `most` characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:most])


_PLAIN = dict.fromkeys((*range(32), *range(127, 160), *range(55296, 57344)), "?")
for _kept in (*b"\n\t",):
    del _PLAIN[_kept]

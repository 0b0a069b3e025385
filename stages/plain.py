"""Plain values: what YAML, JSON and msgpack can all say, within bounds that no honest job comes near.

Whatever a person, a client or a child process hands in is looked at here before a model is made of it, so that no
value ends a process later: by being sent, hashed, stored or walked through.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

Key = str | int

MOST_DEPTH = 24
"""A message of the cluster may be nested 32 deep, and wraps what a job says in a few levels."""
MOST_TEXT_CHARACTERS = 1 << 20
MOST_KEY_CHARACTERS = 255
LEAST_INT, MOST_INT = -(1 << 63), (1 << 64) - 1
_SURROGATES = ("\ud800", "\udfff")


def unplain(value: object) -> Iterator[tuple[tuple[Key, ...], str]]:
    """Mistakes in `value`: the place of each thing and a sentence, in no promised order.

    Plain are text, whole numbers of 64 bits, finite numbers, true, false, null, lists and mappings with text as keys.
    """
    open_: list[tuple[tuple[Key, ...], object]] = [((), value)]
    while open_:
        path, item = open_.pop()
        if isinstance(item, (dict, list, tuple)):
            if len(path) >= MOST_DEPTH and item:
                yield path, f"is nested more than {MOST_DEPTH} levels deep"
            elif isinstance(item, dict):
                for key, inner in item.items():
                    if (wrong := _wrong_key(key)) is not None:
                        yield path, wrong
                    else:
                        open_.append(((*path, key), inner))
            else:
                open_ += [((*path, position), inner) for position, inner in enumerate(item)]
        elif (wrong := _wrong_scalar(item)) is not None:
            yield path, wrong


def is_printable(text: str) -> bool:
    """True where `text` has neither control characters, of any kind and direction, nor halves of characters."""
    return text.isprintable()


def _wrong_key(key: object) -> str | None:
    if not isinstance(key, str):
        return f"has the key {key!r:.60}, which is not text"
    if len(key) > MOST_KEY_CHARACTERS or not is_printable(key):
        return f"has the key {key!r:.60}, which is too long or has control characters"
    return None


def _wrong_scalar(value: object) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        if len(value) > MOST_TEXT_CHARACTERS:
            return f"is text of {len(value):,} characters; the limit is {MOST_TEXT_CHARACTERS:,}"
        if "\0" in value or (not value.isascii() and _has_halves(value)):
            return f"has characters that no file or message can hold: {value!r:.60}"
        return None
    if isinstance(value, int):
        return None if LEAST_INT <= value <= MOST_INT else "is a number of more than 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else "must be a finite number"
    return f"must be text, a number, true, false, null, a list or a mapping, but is {type(value).__name__}"


def _has_halves(text: str) -> bool:
    """True where there are lone surrogates, which UTF-8 cannot say."""
    low, high = _SURROGATES
    return any(low <= character <= high for character in text)

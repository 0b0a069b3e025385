"""One short value for what a component returned, so that two processes can be compared without moving arrays."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def digest(value: Any) -> str:
    """SHA-256 (hex) of a value: dataclasses by their fields, mappings by sorted keys, arrays by dtype, shape, bytes."""
    state = hashlib.sha256()
    _feed(state, value)
    return state.hexdigest()


def tree_digest(path: Path) -> str:
    """SHA-256 (hex) of a file, or of every file below a folder with its path in it."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    state = hashlib.sha256()
    for file in files:
        state.update(str(file.relative_to(path)).encode() + b"\0")
        with file.open("rb") as content:
            state.update(hashlib.file_digest(content, "sha256").digest())
    return state.hexdigest()


def _feed(state: Any, value: Any) -> None:
    match value:
        case np.ndarray():
            state.update(f"array {value.dtype.str} {value.shape} ".encode())
            state.update(np.ascontiguousarray(value).tobytes())
        case bytes():
            state.update(b"bytes %d " % len(value) + value)
        case Mapping():
            state.update(b"mapping ")
            for key in sorted(value, key=repr):
                _feed(state, key)
                _feed(state, value[key])
        case list() | tuple():
            state.update(f"{len(value)} of ".encode())
            for item in value:
                _feed(state, item)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            state.update(type(value).__name__.encode() + b" ")
            for field in dataclasses.fields(value):
                if field.name not in _NOT_CONTENT:
                    _feed(state, field.name)
                    _feed(state, getattr(value, field.name))
        case _:
            state.update(f"{type(value).__name__} {value!r}\0".encode())


_NOT_CONTENT = frozenset({"session"})
"""Fields that hold a live object: an EnvScene's workflow."""

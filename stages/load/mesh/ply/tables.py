"""PLY files as tables: the elements that a header declares, of numbers and of lists, in any of the three formats.

Source: Greg Turk, "The PLY Polygon File Format". Used for meshes and for Gaussian splats.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from nimbusd.stages.errors import AssetError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_Order: TypeAlias = Literal["<", ">", "="]
_ORDERS: dict[str, _Order] = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}
_HEADER_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Property:
    """name, the dtype of its values, and, of a list, the dtype of its length."""

    name: str
    dtype: np.dtype[Any]
    length: np.dtype[Any] | None = None


@dataclass(frozen=True, slots=True)
class Element:
    """name, number of rows, and properties in the order of the file."""

    name: str
    count: int
    properties: tuple[Property, ...]


@dataclass(frozen=True, slots=True)
class PlyHeader:
    """format: as the file names it. start: where the data begins, in bytes. comments: without the word."""

    format: str
    elements: tuple[Element, ...]
    comments: tuple[str, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Lists:
    """A column of lists. counts: (N,) int64 length of each. values: (sum of counts,), one list after the other."""

    counts: npt.NDArray[np.int64]
    values: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of an element: columns of numbers, (N,) each, and columns of lists, by name."""

    count: int
    columns: dict[str, npt.NDArray[Any]]
    lists: dict[str, Lists]


def read_ply_header(content: bytes, path: Path, kind: str) -> PlyHeader:
    """The declarations of the first lines. kind: the file's in messages, such as `mesh file`. Raises AssetError."""
    end = content.find(b"end_header", 0, _HEADER_LIMIT)
    line_end = content.find(b"\n", end)
    if not content.startswith(b"ply") or end < 0 or line_end < 0:
        raise AssetError(f"{kind} {path} is not a PLY file, or is cut off in its header. Copy or export it again.")
    form, comments = "", []
    elements: list[tuple[str, int, list[Property]]] = []
    for line in content[:end].decode("ascii", "replace").splitlines():
        words = line.split()
        try:
            if words[:1] == ["format"]:
                form = words[1]
            elif words[:1] == ["comment"]:
                comments.append(line.split(None, 1)[1] if len(words) > 1 else "")
            elif words[:1] == ["element"]:
                elements.append((words[1], int(words[2]), []))
            elif words[:2] == ["property", "list"]:
                elements[-1][2].append(Property(words[4], np.dtype(_TYPES[words[3]]), np.dtype(_TYPES[words[2]])))
            elif words[:1] == ["property"]:
                elements[-1][2].append(Property(words[2], np.dtype(_TYPES[words[1]])))
        except (IndexError, KeyError, ValueError) as error:
            raise AssetError(
                f"{kind} {path}: the header line {line!r} does not describe a PLY file. Export it again."
            ) from error
    if form not in _ORDERS:
        raise AssetError(f"{kind} {path} is PLY of format {form!r}; known are {', '.join(_ORDERS)}. Export it again.")
    for name, count, properties in elements:
        names = [prop.name for prop in properties]
        if len(set(names)) < len(names):
            raise AssetError(f"{kind} {path}: element `{name}` repeats a property. Export it again.")
        if count < 0:
            raise AssetError(f"{kind} {path}: element `{name}` has {count} rows. Export it again.")
    made = tuple(Element(name, count, tuple(properties)) for name, count, properties in elements)
    return PlyHeader(form, made, tuple(comments), line_end + 1)


def read_ply_tables(content: bytes, header: PlyHeader, path: Path, kind: str) -> dict[str, Table]:
    """The rows of every element, by its name. Raises AssetError where the file ends before them."""
    reader = _Text(content, header) if header.format == "ascii" else _Binary(content, header)
    tables: dict[str, Table] = {}
    for element in header.elements:
        try:
            tables[element.name] = reader.table(element)
        except _CutOff as error:
            raise AssetError(
                f"{kind} {path} is cut off: {element.count} rows of `{element.name}` {error}. Copy or export it again."
            ) from error
        except (ValueError, OverflowError) as error:
            raise AssetError(
                f"{kind} {path} is torn: the {element.count} rows of `{element.name}` cannot be read ({error}). "
                "Copy or export it again."
            ) from error
    return tables


class _CutOff(Exception):
    """The data ends before the rows do."""


class _Binary:
    def __init__(self, content: bytes, header: PlyHeader) -> None:
        self._content, self._at = content, header.start
        self._order = _ORDERS[header.format]

    def table(self, element: Element) -> Table:
        if not any(prop.length for prop in element.properties):
            return self._numbers(element)
        return self._equal_lists(element) or self._any_lists(element)

    def _rows(self, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        end = self._at + count * dtype.itemsize
        if end > len(self._content):
            raise _CutOff(f"end at byte {end}, the file at {len(self._content)}")
        return np.frombuffer(self._content, dtype, count, self._at)

    def _numbers(self, element: Element) -> Table:
        dtype = np.dtype([(prop.name, prop.dtype.newbyteorder(self._order)) for prop in element.properties])
        rows = self._rows(dtype, element.count)
        self._at += element.count * dtype.itemsize
        return Table(element.count, {prop.name: rows[prop.name] for prop in element.properties}, {})

    def _equal_lists(self, element: Element) -> Table | None:
        """The rows if all have lists as long as the first row's; None otherwise."""
        if not element.count:
            return None
        fields: list[Any] = []
        at = self._at
        for number, prop in enumerate(element.properties):
            dtype = prop.dtype.newbyteorder(self._order)
            size = 1
            if prop.length is not None:
                length = prop.length.newbyteorder(self._order)
                size = int(_one(self._content, at, length))
                at += length.itemsize
                fields.append((f"length {number}", length))
            fields.append((f"value {number}", dtype, (size,)))
            at += size * dtype.itemsize
        row = np.dtype(fields)
        if self._at + element.count * row.itemsize > len(self._content):
            return None
        rows = self._rows(row, element.count)
        columns: dict[str, npt.NDArray[Any]] = {}
        lists: dict[str, Lists] = {}
        for number, prop in enumerate(element.properties):
            values = rows[f"value {number}"]
            if prop.length is None:
                columns[prop.name] = values[:, 0]
                continue
            counts = rows[f"length {number}"].astype(np.int64)
            if (counts != values.shape[1]).any():
                return None
            lists[prop.name] = Lists(counts, values.ravel())
        self._at += element.count * row.itemsize
        return Table(element.count, columns, lists)

    def _any_lists(self, element: Element) -> Table:
        runs = _runs(element, self._order)
        content, at = self._content, self._at
        endian: Literal["little", "big"] = "big" if self._order == ">" else "little"
        fixed: list[list[npt.NDArray[Any]]] = [[] for _ in runs]
        found: list[tuple[list[int], list[bytes]]] = [([], []) for _ in runs]
        for _ in range(element.count):
            for number, run in enumerate(runs):
                if isinstance(run, Property):
                    assert run.length is not None
                    start, at = at, at + run.length.itemsize
                    length = int.from_bytes(content[start:at], endian, signed=run.length.kind == "i")
                    end = at + length * run.dtype.itemsize
                    if length < 0:
                        raise _CutOff(f"have a list of {length} values")
                    found[number][0].append(length)
                    found[number][1].append(content[at:end])
                else:
                    end = at + run.itemsize
                    fixed[number].append(np.frombuffer(content[at:end], np.uint8))
                if end > len(content):
                    raise _CutOff(f"end past the file's {len(content)} bytes")
                at = end
        self._at = at
        columns: dict[str, npt.NDArray[Any]] = {}
        lists: dict[str, Lists] = {}
        for number, run in enumerate(runs):
            if isinstance(run, Property):
                values = np.frombuffer(b"".join(found[number][1]), run.dtype.newbyteorder(self._order))
                lists[run.name] = Lists(np.array(found[number][0], np.int64), values)
            elif fixed[number]:
                rows = np.frombuffer(np.concatenate(fixed[number]).tobytes(), run)
                columns |= {name: rows[name] for name in run.names or ()}
        return Table(element.count, columns, lists)


class _Text:
    def __init__(self, content: bytes, header: PlyHeader) -> None:
        self._words = content[header.start :].split()
        self._at = 0

    def table(self, element: Element) -> Table:
        columns: dict[str, list[bytes]] = {prop.name: [] for prop in element.properties if prop.length is None}
        lists: dict[str, tuple[list[int], list[bytes]]] = {
            prop.name: ([], []) for prop in element.properties if prop.length is not None
        }
        words, at = self._words, self._at
        if not lists:
            width = len(element.properties)
            end = at + element.count * width
            for number, name in enumerate(columns):
                columns[name] = words[at + number : end : width]
            at = end
        else:
            for _ in range(element.count):
                for prop in element.properties:
                    if at >= len(words):
                        raise _CutOff(f"end past the file's {len(words)} words")
                    if prop.length is None:
                        columns[prop.name].append(words[at])
                        at += 1
                    else:
                        length = int(words[at])
                        if length < 0:
                            raise _CutOff(f"have a list of {length} values")
                        lists[prop.name][0].append(length)
                        lists[prop.name][1].extend(words[at + 1 : at + 1 + length])
                        at += 1 + length
        if at > len(words):
            raise _CutOff(f"end past the file's {len(words)} words")
        self._at = at
        kinds = {prop.name: prop.dtype for prop in element.properties}
        return Table(
            element.count,
            {name: _numbers(found, kinds[name]) for name, found in columns.items()},
            {name: Lists(np.array(n, np.int64), _numbers(found, kinds[name])) for name, (n, found) in lists.items()},
        )


def _numbers(words: list[bytes], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The words as numbers; integers that are written with a point (255.0) too."""
    return np.array(words, np.bytes_).astype(np.float64).astype(dtype) if words else np.zeros(0, dtype)


def _one(content: bytes, at: int, dtype: np.dtype[Any]) -> Any:
    if at + dtype.itemsize > len(content):
        raise _CutOff(f"end past the file's {len(content)} bytes")
    return np.frombuffer(content, dtype, 1, at)[0]


def _runs(element: Element, order: _Order) -> list[Property | np.dtype[Any]]:
    """The properties in order: each list, and the numbers between two lists as one row."""
    runs: list[Property | np.dtype[Any]] = []
    fields: list[tuple[str, Any]] = []
    for prop in element.properties:
        if prop.length is None:
            fields.append((prop.name, prop.dtype.newbyteorder(order)))
            continue
        if fields:
            runs.append(np.dtype(fields))
            fields = []
        runs.append(prop)
    return [*runs, np.dtype(fields)] if fields else runs

"""Dataset columns: what a feature is in info.json, in Arrow, and in the schema metadata that `datasets` reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.durable import to_json
from nimbusd.stages.types import Feature

ListType: TypeAlias = Literal["List", "Sequence"]
"""The name of lists in `datasets`: `List` since 4.0. LeRobot v2.1's reader needs an older one, which has `Sequence`."""


@dataclass(frozen=True, slots=True)
class Column:
    """One feature. dtype: `video`, `image` or a numpy name. shape: of one frame's value, at least one axis.

    listed: a single number is a list of one, where LeRobot has the number itself.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None
    listed: bool = False

    @property
    def single(self) -> bool:
        """True where a frame's value is stored as a number and not as a list."""
        return self.shape == (1,) and not self.listed

    @property
    def stored(self) -> bool:
        """True for columns of the data files; video has files of its own."""
        return self.dtype != "video"

    def describe(self) -> dict[str, Any]:
        """Its entry in info.json."""
        return {"dtype": self.dtype, "shape": list(self.shape), "names": list(self.names) if self.names else None}

    def arrow_type(self) -> pa.DataType:
        if self.dtype == "image":
            return IMAGE
        scalar = pa.bool_() if self.dtype == "bool" else pa.from_numpy_dtype(np.dtype(self.dtype))
        if self.single:
            return scalar
        if len(self.shape) == 1:
            return pa.list_(scalar, self.shape[0])
        for _ in self.shape:
            scalar = pa.list_(scalar)
        return scalar

    def datasets_type(self, list_type: ListType) -> dict[str, Any]:
        """Its type in the words of the `datasets` package."""
        if self.dtype == "image":
            return {"_type": "Image"}
        if self.single:
            return {"dtype": self.dtype, "_type": "Value"}
        if len(self.shape) == 1:
            return {"feature": {"dtype": self.dtype, "_type": "Value"}, "length": self.shape[0], "_type": list_type}
        return {"shape": list(self.shape), "dtype": self.dtype, "_type": f"Array{len(self.shape)}D"}

    def array(self, values: npt.NDArray[Any]) -> pa.Array:
        """(T, *shape) numbers as an Arrow array of T rows."""
        flat = np.ascontiguousarray(values, np.dtype(self.dtype)).reshape(-1)
        array = pa.array(flat)
        if self.single:
            return array
        if len(self.shape) == 1:
            return pa.FixedSizeListArray.from_arrays(array, self.shape[0])
        for size in reversed(self.shape):
            offsets = np.arange(0, len(array) + 1, size, dtype=np.int32)
            array = pa.ListArray.from_arrays(pa.array(offsets), array)
        return array


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

INDEX_COLUMNS = (
    Column("timestamp", "float32", (1,)),
    Column("frame_index", "int64", (1,)),
    Column("episode_index", "int64", (1,)),
    Column("index", "int64", (1,)),
    Column("task_index", "int64", (1,)),
)
"""LeRobot's five default features, in its order."""


def feature_column(key: str, feature: Feature) -> tuple[Column, npt.NDArray[Any]]:
    """The column of a feature, and its values as (T, *shape) float32, int64 or bool.

    Raises StoreError for a key that cannot be a column's, values that are not numbers or not finite, or
    `names` that do not fit.
    """
    if not key or "/" in key or key in {column.key for column in INDEX_COLUMNS}:
        raise StoreError(f"feature {key!r} cannot be stored: '/' and LeRobot's own column names are not allowed")
    values = np.asarray(feature.values)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim not in (2, 3, 4) or 0 in values.shape:
        raise StoreError(f"feature {key!r} has shape {values.shape}; store (T,) to (T, a, b, c) without empty axes")
    kind = values.dtype.kind
    if kind not in "fiub":
        raise StoreError(f"feature {key!r} has dtype {values.dtype}; store floats, integers or booleans")
    dtype = {"f": "float32", "b": "bool"}.get(kind, "int64")
    with np.errstate(over="ignore"):  # what overflows is refused below
        values = values.astype(dtype)
    if kind == "f" and not np.isfinite(values).all():
        raise StoreError(f"feature {key!r} holds values that are not finite as float32; check the planner")
    if feature.names is not None and len(feature.names) != values.shape[1]:
        raise StoreError(f"feature {key!r} has {len(feature.names)} names for {values.shape[1]} values")
    return Column(key, dtype, tuple(values.shape[1:]), feature.names), values


def column_from_json(key: str, entry: Mapping[str, Any]) -> Column:
    """Inverse of `Column.describe`."""
    names = entry.get("names")
    return Column(key, str(entry["dtype"]), tuple(entry["shape"]), tuple(names) if names else None)


def image_array(contents: Iterable[bytes]) -> pa.Array:
    """Encoded frames as a column of `datasets` images, named frame-000000.png onwards."""
    return pa.array(
        [{"bytes": content, "path": f"frame-{index:06d}.png"} for index, content in enumerate(contents)], IMAGE
    )


def schema(columns: Iterable[Column], list_type: ListType = "List") -> pa.Schema:
    """Arrow schema of the stored ones of `columns`, with the metadata that lets `datasets` type them."""
    stored = [column for column in columns if column.stored]
    features = {column.key: column.datasets_type(list_type) for column in stored}
    fields = [pa.field(column.key, column.arrow_type()) for column in stored]
    return pa.schema(fields, metadata={b"huggingface": to_json({"info": {"features": features}})})


def index_arrays(length: int, fps: float, episode: int, first: int, task: int) -> dict[str, npt.NDArray[Any]]:
    """Values of the five default features for an episode of `length` frames that starts at global index `first`."""
    frames = np.arange(length, dtype=np.int64)
    return {
        "timestamp": (frames / fps).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.full(length, episode, np.int64),
        "index": frames + first,
        "task_index": np.full(length, task, np.int64),
    }


def with_index_columns(
    table: pa.Table,
    columns: Iterable[Column],
    values: Mapping[str, npt.NDArray[Any]],
    list_type: ListType = "List",
) -> pa.Table:
    """`table`'s columns and those of `values`, in the order and with the metadata of `columns`.

    Listed columns are single numbers in `table`.
    """
    stored = [column for column in columns if column.stored]
    own = {column.key: column.array(values[column.key]) for column in stored if column.key in values}
    own |= {c.key: c.array(table.column(c.key).to_numpy()) for c in stored if c.listed}
    arrays = [own[column.key] if column.key in own else table.column(column.key) for column in stored]
    return pa.Table.from_arrays(arrays, schema=schema(stored, list_type))


def parquet_bytes(table: pa.Table) -> bytes:
    """A Parquet file: states compressed with snappy, images as they are (they are compressed already)."""
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **parquet_options(table.schema))
    return bytes(sink.getvalue())


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Writer options by column, for `pyarrow.parquet`."""
    paths = {field.name: field.name for field in schema}
    images = {field.name for field in schema if field.type == IMAGE}
    compression = {name: "snappy" for name in paths if name not in images}
    for name in images:
        compression |= {f"{name}.bytes": "none", f"{name}.path": "snappy"}
    # Dictionaries help repeated values (intrinsics, indexes) and would copy every image once more.
    return {
        "compression": compression,
        "use_dictionary": [name for name in paths if name not in images],
        "write_statistics": [name for name in paths if name not in images],
    }

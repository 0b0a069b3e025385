"""Features of more than one axis, published as rows of numbers.

LeRobot's tools that edit datasets (delete, split, add or remove features) take features of one axis alone. So a pose
(4, 4) is published as 16 numbers, row by row, with names `m00` … `m33`; `shapes` in `meta/conventions.json` has what
each feature was, and nimbusd's reader gives it back so. Pieces keep their arrays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import product
from math import prod

import pyarrow as pa

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.columns import Column
from nimbusd.stages.store.stats import Stats

MOST_NAMED = 256
"""Features of more numbers than these have no names."""
_PIXELS = ("video", "image")


class FlatFeatures:
    """The columns of pieces as they are published.

    columns: of the dataset, in the order given, each of one axis but images and those that stay whole. shapes: of the
    features that were of more axes, by key.
    """

    def __init__(self, columns: Collection[Column], whole: Collection[str] = ()) -> None:
        """columns: as the pieces have them. whole: keys of features whose shape the format prescribes."""
        taken = [column for column in columns if is_array(column) and column.key not in whole]
        self.shapes = {column.key: list(column.shape) for column in taken}
        self.columns = [flat_column(column) if column.key in self.shapes else column for column in columns]

    def table(self, table: pa.Table, where: str) -> pa.Table:
        """`table` with one list of numbers a row in place of nested ones. where: names the piece in errors.

        Raises StoreError for lists that are not of the feature's shape.
        """
        for key, shape in self.shapes.items():
            array, size = table.column(key).combine_chunks(), prod(shape)
            missing = array.null_count
            while pa.types.is_nested(array.type):
                array = array.flatten()
                missing += array.null_count
            if missing or len(array) != table.num_rows * size:
                raise StoreError(f"{where}: {key} is not {shape} numbers in every row. Make the episode again.")
            rows = array if size == 1 else pa.FixedSizeListArray.from_arrays(array, size)
            table = table.set_column(table.column_names.index(key), key, rows)
        return table

    def stats(self, stats: Mapping[str, Stats]) -> dict[str, Stats]:
        """`stats` with the statistics of flat features in their new shape."""
        return {
            key: {name: value.reshape(-1) for name, value in part.items()} if key in self.shapes else part
            for key, part in stats.items()
        }


def is_array(column: Column) -> bool:
    """True for features that are numbers along more than one axis."""
    return column.dtype not in _PIXELS and len(column.shape) > 1


def flat_column(column: Column) -> Column:
    """A feature of one axis that holds the numbers of `column`, the last axis fastest."""
    size = prod(column.shape)
    return Column(column.key, column.dtype, (size,), tuple(_names(column)) if size <= MOST_NAMED else None)


def _names(column: Column) -> Iterator[str]:
    """`m00`, `m01` … by row and column; `m_0_10` with an axis of more than ten; `left.0` where the first has names."""
    gap = "_" if max(column.shape) > 10 else ""
    for first, *rest in product(*(range(size) for size in column.shape)):
        if column.names:
            yield ".".join([column.names[first], *map(str, rest)])
        else:
            yield "m" + "".join(f"{gap}{index}" for index in (first, *rest))

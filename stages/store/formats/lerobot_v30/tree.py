"""A LeRobot v3.0 dataset on disk: files of several episodes, and a row of metadata that says where each one lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from nimbusd.stages.store.beneath import file_beneath, filled, read_beneath
from nimbusd.stages.store.formats.lerobot.tree import LerobotTree


class V30Tree(LerobotTree):
    """One folder with meta/, data/ and videos/."""

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """LeRobot's metadata of each episode, without statistics."""
        import pyarrow.parquet as pq

        files = self._below("meta/episodes/*/*.parquet")
        tables = [pq.ParquetFile(file) for file in files]
        return [
            row
            for table in tables
            for row in table.read([n for n in table.schema_arrow.names if not n.startswith("stats/")]).to_pylist()
        ]

    def table(self, index: int) -> pa.Table:
        row = self.rows[index]
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        return self._rows_of(index, filled(self.info["data_path"], str(self.root), **place))

    def video_place(self, key: str, index: int) -> tuple[Path, int]:
        row = self.rows[index]
        first = round(row[f"videos/{key}/from_timestamp"] * self.fps)
        place = {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
        path = filled(self.info["video_path"], str(self.root), video_key=key, **place)
        return file_beneath(self.root, path), first

    def statistics(self) -> Iterator[tuple[str, Mapping[str, Mapping[str, Any]]]]:
        import pyarrow.parquet as pq

        yield "the dataset", orjson.loads(read_beneath(self.root, "meta/stats.json"))
        for file in self._below("meta/episodes/*/*.parquet"):
            for row in pq.read_table(file, partitioning=None).to_pylist():
                stats: dict[str, dict[str, Any]] = {}
                for name, value in row.items():
                    if name.startswith("stats/"):
                        _, feature, statistic = name.split("/")
                        stats.setdefault(feature, {})[statistic] = value
                yield f"episode {row['episode_index']}", stats

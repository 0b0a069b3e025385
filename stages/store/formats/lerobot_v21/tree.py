"""A LeRobot v2.1 dataset on disk: files of one episode each, found by its number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from nimbusd.stages.store.beneath import file_beneath, filled, read_beneath
from nimbusd.stages.store.formats.lerobot.tree import LerobotTree

EPISODES_STATS = "meta/episodes_stats.jsonl"


class V21Tree(LerobotTree):
    """One folder with meta/, data/ and videos/."""

    def table(self, index: int) -> pa.Table:
        return self._rows_of(index, filled(self.info["data_path"], str(self.root), **self._place(index)))

    def video_place(self, key: str, index: int) -> tuple[Path, int]:
        path = filled(self.info["video_path"], str(self.root), video_key=key, **self._place(index))
        return file_beneath(self.root, path), 0

    def statistics(self) -> Iterator[tuple[str, Mapping[str, Mapping[str, Any]]]]:
        for line in read_beneath(self.root, EPISODES_STATS).splitlines():
            row = orjson.loads(line)
            yield f"episode {row['episode_index']}", row["stats"]

    def _place(self, index: int) -> dict[str, int]:
        return {"episode_chunk": index // int(self.info["chunks_size"]), "episode_index": index}

"""The values that GR00T's and InternVLA-M1's loaders read of a LeRobot v2.1 dataset with a `meta/modality.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

_DEFAULT = {"state": "observation.state", "action": "action"}


class Loader:
    """An episode by the keys of modality.json, such as `state.joints`, `action.gripper_close`, `video.base_view`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.info = json.loads((root / "meta/info.json").read_text())
        self.modality = json.loads((root / "meta/modality.json").read_text())
        self._tasks = {row["task_index"]: row["task"] for row in _lines(root / "meta/tasks.jsonl")}
        self.lengths = [row["length"] for row in _lines(root / "meta/episodes.jsonl")]

    def rows(self, episode: int, key: str) -> npt.NDArray[Any]:
        """(T, n) numbers of a key of state or action. Raises AssertionError for a column that is not of lists."""
        kind, _, name = key.partition(".")
        entry = self.modality[kind][name]
        column = self._table(episode).column(entry.get("original_key", _DEFAULT[kind])).to_pylist()
        rows = np.stack([np.asarray(value) for value in column])
        assert rows.ndim == 2, f"expected a 2D array, got {rows.shape} of {key}"
        return np.asarray(rows[:, np.arange(entry["start"], entry["end"])])

    def language(self, episode: int, key: str = "annotation.human.action.task_description") -> list[str]:
        """The sentence of every frame."""
        entry = self.modality["annotation"][key.removeprefix("annotation.")]
        return [self._tasks[index] for index in self._table(episode).column(entry.get("original_key", key)).to_pylist()]

    def video(self, key: str) -> dict[str, Any]:
        """Size and rate of a camera, and the file of episode 0."""
        original = self.modality["video"][key.removeprefix("video.")]["original_key"]
        feature = self.info["features"][original]
        path = self.info["video_path"].format(episode_chunk=0, episode_index=0, video_key=original)
        return {
            "height": feature["shape"][feature["names"].index("height")],
            "width": feature["shape"][feature["names"].index("width")],
            "channels": feature["info"]["video.channels"],
            "fps": feature["info"]["video.fps"],
            "file": self._root / path,
        }

    def statistics(self) -> dict[str, npt.NDArray[Any]]:
        """(2, n) least and most of every column but annotations, as the loaders compute it where there is none."""
        table = self._table(0)
        found = {}
        for name in table.column_names:
            if not name.startswith("annotation."):
                rows = np.vstack([np.asarray(value, np.float32) for value in table.column(name).to_pylist()])
                found[name] = np.stack([rows.min(axis=0), rows.max(axis=0)])
        return found

    def _table(self, episode: int) -> Any:
        path = self.info["data_path"].format(episode_chunk=0, episode_index=episode)
        return pq.read_table(self._root / path, partitioning=None)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]

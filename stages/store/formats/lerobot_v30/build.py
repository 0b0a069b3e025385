"""LeRobot v3.0: files of several episodes, and one Parquet row of metadata per episode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nimbusd.stages.base import no_beat
from nimbusd.stages.store.beneath import file_beneath
from nimbusd.stages.store.columns import (
    INDEX_COLUMNS,
    Column,
    index_arrays,
    parquet_options,
    schema,
    with_index_columns,
)
from nimbusd.stages.store.durable import to_json
from nimbusd.stages.store.encode import join_videos
from nimbusd.stages.store.formats.lerobot.content import DATA
from nimbusd.stages.store.formats.lerobot.flat import FlatFeatures
from nimbusd.stages.store.formats.lerobot.metadata import CHUNK_SIZE, features_json, index_stats, link_annotations
from nimbusd.stages.store.formats.lerobot_v30.subtasks import SUBTASK, SUBTASKS_PATH, subtask_indexes, subtasks_of
from nimbusd.stages.store.media import FileSizes
from nimbusd.stages.store.publish import (
    Extras,
    Tree,
    link_own_files,
    number,
    robot_type,
    shared_columns,
    tasks_of,
    write_nimbusd_metadata,
)
from nimbusd.stages.store.source_piece import SourcePiece, states_of
from nimbusd.stages.store.stats import Stats, merge_stats, vector_stats

VERSION = "v3.0"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
_MB = 1 << 20


def build_v30(
    root: Path,
    sources: list[SourcePiece],
    job: Mapping[str, Any],
    sizes: FileSizes,
    *,
    final: bool,
    extras: Extras = link_own_files,
    beat: Callable[[], None] = no_beat,
) -> None:
    """Write the dataset of `sources`, in this order, into the empty folder `root`. beat: called for every file.

    One file per episode, so that little is written; when `final`, files of many episodes up to `sizes`.
    """
    tree = Tree(root, beat)
    example = shared_columns(sources)
    tasks, subtasks = tasks_of(sources), subtasks_of(sources, example.columns)
    flat = FlatFeatures(example.columns)
    columns = [*flat.columns, *([SUBTASK] if subtasks else []), *INDEX_COLUMNS]
    parts = [{SUBTASK.key: subtask_indexes(piece, subtasks)} if subtasks else {} for piece in sources]
    starts = [0, *(int(end) for end in np.cumsum([piece.length for piece in sources]))]
    indexes = [
        (piece.length, piece.fps, episode, starts[episode], tasks[piece.task]) for episode, piece in enumerate(sources)
    ]
    rows: list[dict[str, Any]] = [
        {
            "episode_index": episode,
            "tasks": [piece.task],
            "length": piece.length,
            "dataset_from_index": starts[episode],
            "dataset_to_index": starts[episode + 1],
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        for episode, piece in enumerate(sources)
    ]
    groups = _groups([piece.file(DATA).size_bytes for piece in sources], sizes.data_mb * _MB if final else 0)
    for file, group in enumerate(groups):
        chunk, place = divmod(file, CHUNK_SIZE)
        tables = (
            with_index_columns(
                _flat_states(sources[episode], flat), columns, index_arrays(*indexes[episode]) | parts[episode]
            )
            for episode in group
        )
        path = DATA_PATH.format(chunk_index=chunk, file_index=place)
        tree.adopt(path, lambda target, tables=tables: _write_parquet(target, columns, tables))  # type: ignore[misc]
        for episode in group:
            rows[episode] |= {"data/chunk_index": chunk, "data/file_index": place}
    for key in example.record.videos:
        _write_videos(tree, key, sources, sizes.video_mb * _MB if final else 0, rows)
    annotations = link_annotations(tree, sources)
    stats = [
        flat.stats(piece.stats)
        | {key: vector_stats(values[:, None]) for key, values in parts[episode].items()}
        | index_stats(*indexes[episode])
        for episode, piece in enumerate(sources)
    ]
    if subtasks:
        tree.adopt(SUBTASKS_PATH, lambda target: _write_texts(target, "subtask_index", subtasks))
    _write_metadata(tree, sources, columns, tasks, rows, stats, sizes)
    stated = {**annotations, "shapes": flat.shapes}
    write_nimbusd_metadata(tree, sources, job, stated | dict(extras(tree, sources)))
    tree.finish()


def _flat_states(piece: SourcePiece, flat: FlatFeatures) -> pa.Table:
    return flat.table(states_of(piece, DATA), f"piece {piece.piece.folder}: {DATA}")


def _groups(sizes: list[int], limit: int) -> list[list[int]]:
    """Consecutive episodes that share a file: as many as fit into `limit` bytes, at least one."""
    groups: list[list[int]] = []
    used = 0
    for episode, size in enumerate(sizes):
        if not groups or used + size > limit:
            groups.append([])
            used = 0
        groups[-1].append(episode)
        used += size
    return groups


def _write_parquet(target: Path, columns: list[Column], tables: Iterable[pa.Table]) -> None:
    import pyarrow.parquet as pq

    wanted = schema(columns)
    with pq.ParquetWriter(target, wanted, **parquet_options(wanted)) as writer:
        for table in tables:  # one row group per episode: readers can pick an episode without the rest
            writer.write_table(table)


def _write_videos(tree: Tree, key: str, sources: list[SourcePiece], limit: int, rows: list[dict[str, Any]]) -> None:
    name = f"videos/{key}.mp4"
    for file, group in enumerate(_groups([piece.file(name).size_bytes for piece in sources], limit)):
        chunk, place = divmod(file, CHUNK_SIZE)
        path = VIDEO_PATH.format(video_key=key, chunk_index=chunk, file_index=place)
        if len(group) == 1:
            tree.link(path, sources[group[0]], name)
        else:
            parts = [file_beneath(sources[episode].root, name) for episode in group]
            tree.write(path, join_videos(parts, sources[0].fps))
        first = 0
        for episode in group:
            piece = sources[episode]
            rows[episode] |= {
                f"videos/{key}/chunk_index": chunk,
                f"videos/{key}/file_index": place,
                f"videos/{key}/from_timestamp": first / piece.fps,
                f"videos/{key}/to_timestamp": (first + piece.length) / piece.fps,
            }
            first += piece.length


def _write_metadata(
    tree: Tree,
    sources: list[SourcePiece],
    columns: list[Column],
    tasks: Mapping[str, int],
    rows: list[dict[str, Any]],
    stats: list[dict[str, Stats]],
    sizes: FileSizes,
) -> None:
    example = sources[0]
    info = {
        "codebase_version": VERSION,
        "robot_type": robot_type(sources),
        "total_episodes": len(sources),
        "total_frames": sum(piece.length for piece in sources),
        "total_tasks": len(tasks),
        "chunks_size": CHUNK_SIZE,
        "data_files_size_in_mb": sizes.data_mb,
        "video_files_size_in_mb": sizes.video_mb,
        "fps": number(example.fps),
        "splits": {"train": f"0:{len(sources)}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if example.record.videos else None,
        "features": features_json(columns, example.record.videos),
    }
    tree.write("meta/info.json", to_json(info, indent=True))
    merged = {column.key: merge_stats([episode[column.key] for episode in stats]) for column in columns}
    tree.write("meta/stats.json", to_json(merged, indent=True))
    tree.adopt("meta/tasks.parquet", lambda target: _write_texts(target, "task_index", tasks))
    for row, episode in zip(rows, stats, strict=True):
        row |= {f"stats/{key}/{name}": value.tolist() for key, part in episode.items() for name, value in part.items()}
    tree.adopt(EPISODES_PATH, lambda target: _write_rows(target, rows))


def _write_rows(target: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), target)


def _write_texts(target: Path, column: str, numbers: Mapping[str, int]) -> None:
    """A pandas frame with texts as its index and their numbers in `column`, written without pandas."""
    import pyarrow.parquet as pq

    pandas = {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [
            {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
        ],
        "columns": [
            {
                "name": column,
                "field_name": column,
                "pandas_type": "int64",
                "numpy_type": "int64",
                "metadata": None,
            },
            {
                "name": None,
                "field_name": "__index_level_0__",
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": None,
            },
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    fields = [pa.field(column, pa.int64()), pa.field("__index_level_0__", pa.large_string())]
    arrays = [pa.array(list(numbers.values()), pa.int64()), pa.array(list(numbers), pa.large_string())]
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata={b"pandas": to_json(pandas)}))
    pq.write_table(table, target)

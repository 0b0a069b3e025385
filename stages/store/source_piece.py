"""`SourcePiece`: a committed piece as a part of the dataset that is being built of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nimbusd.stages.errors import StoreError
from nimbusd.stages.notes import Notes
from nimbusd.stages.store.beneath import file_beneath, read_beneath
from nimbusd.stages.store.columns import Column, column_from_json
from nimbusd.stages.store.piece import piece_root
from nimbusd.stages.store.record import MOST_RECORD_BYTES, RECORD, parsed_record
from nimbusd.stages.store.record_model import Facts, PieceRecord
from nimbusd.stages.store.stats import Stats, stats_from_json
from nimbusd.stages.types import Piece, PieceFile


@dataclass(frozen=True)
class SourcePiece:
    """A piece of which a dataset is made."""

    root: Path
    """Its folder."""
    piece: Piece
    content: Mapping[str, Any]
    """Its record as JSON values, which reach the dataset as they are."""
    record: PieceRecord
    """The same in types, of its format's `record_model`."""

    @property
    def length(self) -> int:
        return self.piece.length

    @property
    def fps(self) -> float:
        return self.record.fps

    @property
    def task(self) -> str:
        return self.record.facts.task

    @property
    def facts(self) -> Facts:
        """The part of the record that is the same whenever the episode is made again."""
        return self.record.facts

    @cached_property
    def notes(self) -> Notes:
        """The notes that the planner made; the record's model has checked the parts of the episode among them."""
        return Notes(self.content["facts"]["notes"])

    @cached_property
    def columns(self) -> list[Column]:
        """Features of the episode without LeRobot's default ones, in their order."""
        return [column_from_json(key, entry) for key, entry in self.content["features"].items()]

    @cached_property
    def stats(self) -> dict[str, Stats]:
        return {key: stats_from_json(stats) for key, stats in self.record.stats.items()}

    def has(self, path: str) -> bool:
        """True if the piece has a file of that path."""
        return any(file.path == path for file in self.piece.files)

    def file(self, path: str) -> PieceFile:
        """The manifest's entry for `path`. Raises StoreError if the piece has no such file."""
        for file in self.piece.files:
            if file.path == path:
                return file
        raise StoreError(f"piece {self.piece.folder} has no file {path}; was it stored with other arguments?")

    def files_under(self, folder: str) -> list[PieceFile]:
        """Files whose path starts with `folder`/, sorted by path."""
        return [file for file in self.piece.files if file.path.startswith(folder + "/")]

    def metadata(self, episode_index: int) -> dict[str, Any]:
        """The episode's line in `meta/nimbusd_episodes.jsonl`."""
        row = {"episode_index": episode_index, "length": self.length, **self.content["facts"]}
        run = dict(self.content["run"])
        if environment := run.get("environment"):  # its packages are in `meta/environment.json`, once for all episodes
            run["environment"] = {key: value for key, value in environment.items() if key != "packages"}
        return row | {"run": run, "piece": self.piece.folder}


def load_piece(output: Path, piece: Piece, format_name: str) -> SourcePiece:
    """Read a piece's record. Raises StoreError, which names the piece, if it is missing, torn or of another format."""
    root = piece_root(output, piece.folder)
    where = f"piece {piece.folder}: {RECORD}"
    try:
        content, record = parsed_record(read_beneath(root, RECORD, MOST_RECORD_BYTES), where, format_name)
    except OSError as error:
        raise StoreError(f"{where} cannot be read ({error}). Make the episode again.") from error
    except StoreError as error:
        raise StoreError(f"{error}. Make the episode again.") from error
    if record.format != format_name:
        raise StoreError(
            f"piece {piece.folder} was stored for {record.format[:80]!r}, not for {format_name}. "
            "Use the format of the pieces, or another output folder."
        )
    if record.length != piece.length:
        raise StoreError(f"{where} says {record.length} frames, the manifest {piece.length}. Make the episode again.")
    return SourcePiece(root, piece, content, record)


def states_of(source: SourcePiece, path: str) -> Any:
    """The piece's table of states, an Arrow table with a row per frame and a column per feature that is stored.

    Raises StoreError, which names the piece, if it is not that.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source.file(path)
    try:
        table = pq.read_table(file_beneath(source.root, path), partitioning=None)
    except (OSError, ValueError, pa.ArrowException) as error:
        where = f"piece {source.piece.folder}: {path}"
        raise StoreError(f"{where} cannot be read ({error}). Make the episode again.") from error
    types = {field.name: field.type for field in table.schema}
    wrong = [column.key for column in source.columns if column.stored and types.get(column.key) != column.arrow_type()]
    if table.num_rows != source.length or wrong:
        what = f"no column {wrong[0]!r} of the right type" if wrong else f"{table.num_rows} rows, not {source.length}"
        raise StoreError(f"piece {source.piece.folder}: {path} has {what}. Make the episode again.")
    return table

"""Datasets of successes alone, or of successes and failures kept apart in two trees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nimbusd.stages.errors import StoreError
from nimbusd.stages.notes import Notes
from nimbusd.stages.store.durable import sync_file
from nimbusd.stages.store.source_piece import SourcePiece
from nimbusd.stages.types import Sequence

SUCCESS_TREE = "success"
FAILED_TREE = "failed"


def refuse_failures(seq: Sequence) -> None:
    """Raise StoreError for an attempt that failed: this dataset is of successes."""
    result = Notes(seq.notes).result
    if not result.success:
        raise StoreError(
            f"the attempt failed ({result.reason}), and this dataset is of successes; "
            "set keep_failures for the writer too, or for neither planner nor writer"
        )


def build_by_outcome(root: Path, sources: list[SourcePiece], build: Callable[[Path, list[SourcePiece]], None]) -> None:
    """Build `success/` and `failed/` under `root`, each a whole dataset; one that would be empty is left out."""
    for name, success in ((SUCCESS_TREE, True), (FAILED_TREE, False)):
        part = [piece for piece in sources if piece.facts.result.success == success]
        if part:
            (root / name).mkdir()
            build(root / name, part)
    sync_file(root)

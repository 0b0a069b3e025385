"""`DatasetWriter`: what all writers do, which is to leave everything to the format that their arguments name."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, field_validator

from nimbusd.stages.base import BaseWriter
from nimbusd.stages.errors import ComponentError
from nimbusd.stages.store.formats.table import DEFAULT_FORMAT, format_named
from nimbusd.stages.store.media import MediaArgs
from nimbusd.stages.store.piece import draft_piece
from nimbusd.stages.store.publish import publish_pieces
from nimbusd.stages.store.source_piece import SourcePiece
from nimbusd.stages.types import Episode, Observation, Piece, Sequence

A = TypeVar("A", bound=MediaArgs)


class DatasetWriter(BaseWriter[A]):
    """Stores episodes as durable pieces, and publishes pieces as a dataset. Safe to call from several threads."""

    def __init__(self, args: A) -> None:
        super().__init__(args)
        self.format = format_named(self.format_name(args))

    @classmethod
    @abstractmethod
    def format_name(cls, args: Any) -> str:
        """The format, as the table of formats has it, that these arguments ask for."""

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        with draft_piece(episode.output, episode.request) as draft:
            self.format.write(draft, seq, obs, episode, self.args, self.beat)
            piece = draft.commit(len(seq))
        self.beat()
        return piece

    def refused_sizes(self, sizes: dict[str, tuple[int, int]]) -> list[str]:
        return self.format.refused_sizes(sizes, self.args)

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        def build(root: Path, sources: list[SourcePiece]) -> None:
            self.format.build(root, sources, job, self.args, final=final, beat=self.beat)

        return publish_pieces(output, pieces, self.format.name, build, final=final, beat=self.beat)


class ChosenFormatArgs(MediaArgs):
    """Arguments of a writer whose format is chosen by name."""

    format: str = Field(
        default=DEFAULT_FORMAT,
        description="Dataset format, such as `lerobot-v3.0` or `lerobot-v2.1`; NavWriter has `interndata-n1`, too.",
    )

    @field_validator("format")
    @classmethod
    def _offered(cls, name: str) -> str:
        try:
            needed = format_named(name).args_model
        except ComponentError as error:
            raise ValueError(str(error)) from error
        if not issubclass(cls, needed):
            raise ValueError(f"format '{name}' needs the arguments of {needed.__name__}: take the writer that has them")
        return name

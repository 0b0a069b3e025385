"""`NavWriter`: navigation episodes as LeRobot v3.0, LeRobot v2.1 or InternData-N1 datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from nimbusd.stages.base import BaseWriter
from nimbusd.stages.store.encode import encoder_refusals
from nimbusd.stages.store.formats.lerobot.content import write_lerobot
from nimbusd.stages.store.formats.lerobot.settings import MediaArgs
from nimbusd.stages.store.formats.lerobot.v21 import build_v21
from nimbusd.stages.store.formats.lerobot.v30 import build_v30
from nimbusd.stages.store.formats.n1.trees import build_n1, write_n1
from nimbusd.stages.store.piece import draft_piece
from nimbusd.stages.store.publish import publish_pieces
from nimbusd.stages.store.record import SourcePiece
from nimbusd.stages.types import Episode, Observation, Piece, Sequence

FormatName = Literal["lerobot-v3.0", "lerobot-v2.1", "interndata-n1"]


class NavWriterArgs(MediaArgs):
    """How navigation episodes are stored."""

    format: FormatName = Field(default="lerobot-v3.0", description="Dataset format to publish.")
    robot_type: str = Field(default="mobile_base", description="`robot_type` of the dataset.")
    jpeg_quality: int = Field(default=95, ge=1, le=100, description="Quality of InternData-N1's RGB frames.")
    obstacle_low_m: float = Field(default=0.1, ge=0, description="Lowest height of obstacles in N1's point cloud.")
    obstacle_high_m: float = Field(default=1.2, gt=0, description="Greatest height of obstacles in N1's point cloud.")


class NavWriter(BaseWriter[NavWriterArgs]):
    """Stores episodes as durable pieces, and publishes pieces as a dataset. Safe to call from several threads."""

    args_model = NavWriterArgs

    def __init__(self, args: NavWriterArgs) -> None:
        super().__init__(args)
        self._settings = args.content(args.robot_type)

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        args = self.args
        with draft_piece(episode.output, episode.request) as draft:
            if args.format == "interndata-n1":
                obstacles = (args.obstacle_low_m, args.obstacle_high_m)
                write_n1(draft, seq, obs, episode, self._settings, args.jpeg_quality, obstacles, self.beat)
            else:
                write_lerobot(draft, seq, obs, episode, args.format, self._settings, self.beat)
            piece = draft.commit(len(seq))
        self.beat()
        return piece

    def refused_sizes(self, sizes: dict[str, tuple[int, int]]) -> list[str]:
        if self.args.format == "interndata-n1":  # has videos to look at, whatever `media` says
            return encoder_refusals(sizes, self._settings.video)
        return self.args.refused_sizes(sizes)

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        def build(root: Path, stored: list[SourcePiece]) -> None:
            if self.args.format == "lerobot-v3.0":
                build_v30(root, stored, job, self.args.sizes, final=final, beat=self.beat)
            elif self.args.format == "lerobot-v2.1":
                build_v21(root, stored, job, beat=self.beat)
            else:
                build_n1(root, stored, job, self.beat)

        return publish_pieces(output, pieces, self.args.format, build, final=final, beat=self.beat)

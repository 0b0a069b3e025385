"""`EnvWriter`: episodes of any workflow as LeRobot datasets, with the files that the workflow saved itself beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from nimbusd.stages.base import BaseWriter
from nimbusd.stages.store.formats.lerobot.content import robot_type_of, write_lerobot
from nimbusd.stages.store.formats.lerobot.settings import MediaArgs
from nimbusd.stages.store.formats.lerobot.v21 import build_v21
from nimbusd.stages.store.formats.lerobot.v30 import build_v30
from nimbusd.stages.store.piece import draft_piece
from nimbusd.stages.store.publish import publish_pieces
from nimbusd.stages.store.record import SourcePiece
from nimbusd.stages.types import Episode, Observation, Piece, Sequence


class EnvWriterArgs(MediaArgs):
    """How a workflow's episodes are stored."""

    format: Literal["lerobot-v3.0", "lerobot-v2.1"] = Field(default="lerobot-v3.0", description="Dataset format.")
    robot_type: str = Field(
        default="", description="`robot_type` of the dataset; empty: what the planner calls its robot, or `unknown`."
    )


class EnvWriter(BaseWriter[EnvWriterArgs]):
    """Stores what the workflow described and saw; what it saved itself lies in `files/episode_000000/…`."""

    version = "1.1.0"
    args_model = EnvWriterArgs

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        args = self.args
        if not obs.frames and obs.files:  # a plan that nobody has looked at yet: its columns and files alone
            seq = replace(seq, cameras=(), T_world_camera={}, T_base_camera={})
        with draft_piece(episode.output, episode.request) as draft:
            settings = args.content(args.robot_type or robot_type_of(seq))
            write_lerobot(draft, seq, obs, episode, args.format, settings, self.beat)
            piece = draft.commit(len(seq))
        self.beat()
        return piece

    def refused_sizes(self, sizes: dict[str, tuple[int, int]]) -> list[str]:
        return self.args.refused_sizes(sizes)

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        def build(root: Path, stored: list[SourcePiece]) -> None:
            if self.args.format == "lerobot-v3.0":
                build_v30(root, stored, job, self.args.sizes, final=final, beat=self.beat)
            else:
                build_v21(root, stored, job, beat=self.beat)

        return publish_pieces(output, pieces, self.args.format, build, final=final, beat=self.beat)

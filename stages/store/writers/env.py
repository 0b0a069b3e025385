"""`EnvWriter`: episodes of any workflow as LeRobot datasets, with the files that the workflow saved itself beside."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from nimbusd.stages.store.media import robot_type_of
from nimbusd.stages.store.writers.base import ChosenFormatArgs, DatasetWriter
from nimbusd.stages.types import Episode, Observation, Piece, Sequence


class EnvWriterArgs(ChosenFormatArgs):
    """Arguments of EnvWriter."""

    robot_type: str = Field(
        default="", description="`robot_type` of the dataset; empty: what the planner calls its robot, or `unknown`."
    )

    def robot(self, seq: Sequence) -> str:
        return self.robot_type or robot_type_of(seq)


class EnvWriter(DatasetWriter[EnvWriterArgs]):
    """Stores what the workflow described and saw; what it saved itself lies in `files/episode_000000/…`."""

    version = "1.1.0"
    args_model = EnvWriterArgs

    @classmethod
    def format_name(cls, args: EnvWriterArgs) -> str:
        return args.format

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        if not obs.frames and obs.files:  # a plan that nobody has looked at yet: its columns and files alone
            seq = replace(seq, cameras=(), T_world_camera={}, T_base_camera={})
        return super().save_data(seq, obs, episode)

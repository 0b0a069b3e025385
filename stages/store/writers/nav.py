"""`NavWriter`: navigation episodes as LeRobot v3.0, LeRobot v2.1 or InternData-N1 datasets."""

from __future__ import annotations

from pydantic import Field

from nimbusd.stages.store.writers.base import ChosenFormatArgs, DatasetWriter
from nimbusd.stages.types import Sequence


class NavWriterArgs(ChosenFormatArgs):
    """Arguments of NavWriter."""

    robot_type: str = Field(default="mobile_base", description="`robot_type` of the dataset.")
    jpeg_quality: int = Field(default=95, ge=1, le=100, description="Quality of InternData-N1's RGB frames.")
    obstacle_low_m: float = Field(default=0.1, ge=0, description="Lowest height of obstacles in N1's point cloud.")
    obstacle_high_m: float = Field(default=1.2, gt=0, description="Greatest height of obstacles in N1's point cloud.")

    def robot(self, seq: Sequence) -> str:
        return self.robot_type


class NavWriter(DatasetWriter[NavWriterArgs]):
    """Stores drives. Its formats are `lerobot-v3.0`, `lerobot-v2.1` and `interndata-n1`."""

    args_model = NavWriterArgs

    @classmethod
    def format_name(cls, args: NavWriterArgs) -> str:
        return args.format

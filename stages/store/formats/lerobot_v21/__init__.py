"""LeRobot v2.1: one Parquet and one video file per episode, metadata as JSON lines."""

from nimbusd.stages.store.formats.lerobot_v21.format import LEROBOT_V21

__all__ = ["LEROBOT_V21"]

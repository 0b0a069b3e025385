"""LeRobot v3.0: files of several episodes, and one Parquet row of metadata per episode."""

from nimbusd.stages.store.formats.lerobot_v30.format import LEROBOT_V30

__all__ = ["LEROBOT_V30"]

"""InternData-N1 (navigation): one LeRobot v2.1 tree per scene, with flat folders of frames beside the videos."""

from nimbusd.stages.store.formats.n1.format import INTERNDATA_N1

__all__ = ["INTERNDATA_N1"]

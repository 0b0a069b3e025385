"""InternData-M1 (manipulation): planning trace, labels per frame and questions about them, beside LeRobot's files."""

from nimbusd.stages.store.formats.m1.format import INTERNDATA_M1_V21, INTERNDATA_M1_V30

__all__ = ["INTERNDATA_M1_V21", "INTERNDATA_M1_V30"]

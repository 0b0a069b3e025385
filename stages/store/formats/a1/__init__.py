"""InternData-A1 (manipulation): the release's feature names, and where the objects are, beside LeRobot's files."""

from nimbusd.stages.store.formats.a1.format import INTERNDATA_A1_V21, INTERNDATA_A1_V30

__all__ = ["INTERNDATA_A1_V21", "INTERNDATA_A1_V30"]

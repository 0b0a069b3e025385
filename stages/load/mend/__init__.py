"""Scenes from somebody's files made fit for use: coincident surfaces, floors that face down, far origins, doubts."""

from nimbusd.stages.load.mend.mend import WARNINGS, mended, warned, warnings_of
from nimbusd.stages.load.mend.recentre import check_near_origin, recentred

__all__ = ["WARNINGS", "check_near_origin", "mended", "recentred", "warned", "warnings_of"]

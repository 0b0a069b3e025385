"""Houses of 3D-FRONT with the furniture of 3D-FUTURE."""

from nimbusd.stages.load.front3d.loader import BProc3DFrontLoader

__all__ = ["BProc3DFrontLoader"]

"""Isaac Sim: any scene by RTX, several time steps in one pass."""

from nimbusd.renderers.isaac.renderer import IsaacSimRenderer

__all__ = ["IsaacSimRenderer"]

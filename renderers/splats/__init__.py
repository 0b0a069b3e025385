"""Gaussian splats: what a cloud looks like, drawn on the CPU by numba or on a GPU by gsplat."""

from nimbusd.renderers.splats.renderer import SCGSRenderer

__all__ = ["SCGSRenderer"]

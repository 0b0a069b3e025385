"""Blender: any scene by path tracing (Cycles), with exact depth and segmentation by rays."""

from nimbusd.renderers.blender.renderer import BlenderProcRenderer

__all__ = ["BlenderProcRenderer"]

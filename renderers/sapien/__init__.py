"""SAPIEN: any scene by rasterizing on a Vulkan device."""

from nimbusd.renderers.sapien.renderer import SapienRenderer

__all__ = ["SapienRenderer"]

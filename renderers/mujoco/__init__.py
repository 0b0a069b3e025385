"""MuJoCo: recorded states of a simulation, drawn by a rasterizer of our own on OpenGL."""

from nimbusd.renderers.mujoco.renderer import MujocoRenderer

__all__ = ["MujocoRenderer"]

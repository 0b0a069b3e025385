"""Scenes of Gaussian splats: .ply, .spz and .sog files, splats made of a mesh, and the proxy mesh to plan on."""

from nimbusd.stages.load.splats.loader import GSMeshLoader

__all__ = ["GSMeshLoader"]

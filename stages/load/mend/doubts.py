"""Doubts about how a scene was loaded: an axis or a unit that is probably another one, as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nimbusd.stages.load.mend.size import misfit
from nimbusd.stages.load.mend.upright import Lean, lean
from nimbusd.stages.load.mesh.part import Z_UP_FROM_Y_UP
from nimbusd.stages.types import F64, Scene


def doubts(scene: Scene) -> list[str]:
    """Sentences that say what speaks against the scene's axis or unit, and which it probably is; none where all fits.

    A scene that lies on its side is not measured. Needs shapely; takes about a second for 150,000 triangles.
    """
    if (found := lean(scene.objects)) is not None:
        return [_lies(found, scene.provenance)]
    if (wrong := misfit(scene.objects)) is not None:
        read_m = float(scene.provenance.get("unit_m", 1.0))
        name, unit_m = wrong.unit_of(read_m)
        size = "large" if wrong.factor > 1 else "small"
        text = f"the scene seems too {size}: {', '.join(wrong.why)}"
        likely = f"Its file is probably in {name}: set `unit_m: {unit_m:g}`." if unit_m != read_m else "Check `unit_m`."
        return [f"{text}. {likely}"]
    return []


def _lies(found: Lean, provenance: Mapping[str, Any]) -> str:
    way = "upside down" if found.up[2] < 0 else "on its side"
    axis = _axis_of(np.array(found.up))
    text = f"the scene seems to lie {way}: up looks like {axis} of the loaded scene ({', '.join(found.why)})"
    rotation = _world_from_file(provenance)
    if rotation is None:
        return f"{text}. Turn the file."
    file_axis = _axis_of(rotation.T @ np.array(found.up))
    kind = "splat" if "T_world_splats" in provenance else "mesh"
    if kind == "mesh" and file_axis not in ("y", "z"):
        return f"{text}, which is {file_axis} of the mesh file. Turn the file so that y or z points up."
    return f"{text}. Set `up_axis: {file_axis}` of the {kind} file."


def _world_from_file(provenance: Mapping[str, Any]) -> F64 | None:
    """(3, 3) rotation from the file's axes to the world's; None where the loader does not say."""
    if "T_world_splats" in provenance:
        linear = np.array(provenance["T_world_splats"], np.float64)[:3, :3]
        return np.asarray(linear / np.cbrt(np.linalg.det(linear)))
    if "up_axis" in provenance:
        return Z_UP_FROM_Y_UP[:3, :3] if provenance["up_axis"] == "y" else np.eye(3)
    return None


def _axis_of(direction: F64) -> str:
    """`x`, `-y` …: the axis nearest to a direction."""
    k = int(np.abs(direction).argmax())
    return ("-" if direction[k] < 0 else "") + "xyz"[k]

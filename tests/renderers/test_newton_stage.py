"""Isaac Sim's USD stage as a reader of others sees it: Newton, which NVIDIA's own camera code is in, on the CPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nimbusd.renderers.raycast import RayCaster
from tests.support import newton_pictures as pictures

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("newton", "newton_usd_schemas", "pxr", "embreex")),
    reason="Newton is not installed (pip install 'nimbusd[newton,usd,rays]')",
)


def test_newton_sees_of_our_stage_what_our_rays_see(tmp_path: Path) -> None:
    """Geometry, a moved object, paths, and both kinds of cameras: pinholes of USD, and those with the lens."""
    target = tmp_path / "newton.npz"
    subprocess.run([sys.executable, "-m", "tests.support.newton_pictures", str(target)], check=True)
    caster = RayCaster(pictures.ROOM)
    caster.prepare(frozenset({"crate"}))
    with np.load(target) as found:
        for t, T_world_crate in enumerate(pictures.CRATE_POSES):
            for camera, eye in zip(pictures.CAMERAS, pictures.EYES, strict=True):
                depth, ids = caster.cast(camera, eye, {"crate": T_world_crate})
                same = found[f"{t}/{camera.name}/ids"] == ids
                assert same.mean() > 0.9999
                assert set(np.unique(ids)) == {0, 1, 2, 300}
                away = np.abs(found[f"{t}/{camera.name}/depth"] - depth)[same]
                assert away.max() < 1e-4

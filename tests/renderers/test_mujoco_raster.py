"""Our rasterizer shows what MuJoCo's own drawing shows: lamps, shadows, pictures, clear things; in any order."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from nimbusd.stages.types import F32, F64, U8, U16, Camera
from nimbusd.stages.workflow.sim import camera_poses
from nimbusd.stages.workflow.sim.rotation import look_at
from tests.support.manip_worlds import planned, require_simulation
from tests.support.mujoco_reference import Reference, psnr, worst_iou

require_simulation()
pytest.importorskip("moderngl", reason="needs the mujoco extra")
pytestmark = pytest.mark.mujoco

CAMERA = Camera("still", 160, 120, 150.0, 145.0, 83.0, 57.0)
VIEWS = (
    look_at(np.array([0.9, -0.9, 1.0]), np.array([0.0, 0.0, 0.15]), (0.0, 0.0, 1.0)),
    look_at(np.array([-0.5, 0.5, 0.4]), np.array([0.1, 0.0, 0.1]), (0.0, 0.0, 1.0)),
)


class Drawn:
    """Our pictures of a model; `place` once per state, `draw` as often as wanted."""

    def __init__(self, model: Any, data: Any, instance: U16, shadows: bool = True) -> None:
        from nimbusd.renderers.mujoco.gl import open_device
        from nimbusd.renderers.mujoco.view import raster_of

        self._device = open_device("cpu")
        self._raster, self._geoms = raster_of(self._device.gl, model, data, instance, shadows)

    def draw(self, data: Any, camera: Camera, T_world_camera: F64) -> tuple[U8, U16, F32]:
        from nimbusd.renderers.mujoco.view import look, places_of

        self._device.make_current()
        self._raster.place(places_of(data, self._geoms))
        self._raster.begin(camera.width, camera.height)
        self._raster.draw([look(camera, T_world_camera, 0)])
        colour, ids, metres = self._raster.read()
        return colour[::-1, :, :3], ids[::-1], metres[::-1]

    def close(self) -> None:
        self._device.make_current()
        self._raster.close()
        self._device.close()


def shelf(lamps: tuple[str, ...], clear: bool = False) -> tuple[Any, Any, U16]:
    """A model of every shape and kind of picture under such lamps. Returns it with its state and ids."""
    import mujoco
    import trimesh

    from nimbusd.stages.workflow.sim.world.bodies import VISIBLE_GROUP
    from nimbusd.stages.workflow.sim.world.world import FAR_M, NEAR_M

    spec, kinds = mujoco.MjSpec(), mujoco.mjtGeom
    spec.stat.extent = 1.0
    spec.visual.map.znear, spec.visual.map.zfar, spec.visual.map.shadowclip = NEAR_M, FAR_M, 1.1
    spec.visual.quality.shadowsize = 2048
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.2] * 3, [0.0] * 3
    spec.visual.headlight.specular = [0.0] * 3
    rng = np.random.default_rng(4)
    for name, kind in (("flat", mujoco.mjtTexture.mjTEXTURE_2D), ("cube", mujoco.mjtTexture.mjTEXTURE_CUBE)):
        picture = spec.add_texture(name=name, type=kind)
        picture.width, picture.height, picture.nchannel = 16, 16 if kind == mujoco.mjtTexture.mjTEXTURE_2D else 96, 3
        picture.data = rng.integers(60, 256, picture.width * picture.height * 3, dtype=np.uint8).tobytes()
        material = spec.add_material(name=name, rgba=[1, 1, 1, 1], texrepeat=[2, 2], texuniform=name == "flat")
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    spec.add_material(name="shiny", rgba=[0.8, 0.3, 0.2, 1.0], specular=0.9, shininess=0.6)
    spec.add_material(name="glow", rgba=[0.2, 0.5, 0.9, 1.0], emission=0.4)
    spec.add_material(name="glass", rgba=[0.3, 0.8, 0.4, 0.4])
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.12)
    spec.add_mesh(name="ball", uservert=ball.vertices.ravel(), userface=ball.faces.ravel())
    for name, kind, size, position, material in (
        ("floor", kinds.mjGEOM_BOX, [1.0, 1.0, 0.05], [0, 0, -0.05], "flat"),
        (
            "cellar",
            kinds.mjGEOM_BOX,
            [0.1, 0.1, 0.1],
            [0, 0, -0.6],
            "shiny",
        ),  # above which the floor casts shadows
        ("box", kinds.mjGEOM_BOX, [0.1, 0.08, 0.12], [0.3, 0.1, 0.12], "cube"),
        ("can", kinds.mjGEOM_CYLINDER, [0.08, 0.1, 0], [-0.3, 0.2, 0.1], "shiny"),
        ("ball", kinds.mjGEOM_SPHERE, [0.1, 0, 0], [0.0, 0.35, 0.1], "glow"),
        ("egg", kinds.mjGEOM_ELLIPSOID, [0.06, 0.1, 0.14], [0.0, -0.3, 0.14], "shiny"),
        ("pill", kinds.mjGEOM_CAPSULE, [0.05, 0.1, 0], [0.35, -0.25, 0.15], "flat"),
        ("card", kinds.mjGEOM_PLANE, [0.15, 0.1, 0.05], [-0.3, -0.2, 0.02], "flat"),
    ):
        spec.worldbody.add_geom(
            name=name, type=kind, size=size, pos=position, material=material, group=VISIBLE_GROUP, contype=0,
            conaffinity=0,
        )  # fmt: skip
    body = spec.worldbody.add_body(name="mover", pos=[0.0, 0.0, 0.3])
    body.add_freejoint()
    body.add_geom(
        name="mesh", type=kinds.mjGEOM_MESH, meshname="ball", material="flat", group=VISIBLE_GROUP, contype=0,
        conaffinity=0,
    )  # fmt: skip
    if clear:
        for name, position in (("pane", [0.3, -0.4, 0.15]), ("pane2", [0.45, -0.5, 0.15])):
            spec.worldbody.add_geom(
                name=name, type=kinds.mjGEOM_BOX, size=[0.15, 0.01, 0.15], pos=position, material="glass",
                group=VISIBLE_GROUP, contype=0, conaffinity=0,
            )  # fmt: skip
    for number, lamp in enumerate(lamps):
        kind, _, casts = lamp.partition("+")
        spot = kind == "spot"
        spec.worldbody.add_light(
            name=f"lamp{number}", pos=[0.4 - number, 0.5, 1.4], dir=[-0.3 + 0.6 * number, -0.4, -1.0],
            type=mujoco.mjtLightType.mjLIGHT_SPOT if spot else mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            diffuse=[0.6, 0.5, 0.4], ambient=[0.05] * 3, specular=[0.4] * 3, castshadow=casts == "shadow", cutoff=50.0,
            exponent=4.0, attenuation=[0.8, 0.1, 0.1],
        )  # fmt: skip
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data, np.arange(300, 300 + model.ngeom, dtype=np.uint16)


def check_alike(model: Any, data: Any, instance: U16, least_db: float = 40.0) -> None:
    ours, theirs = Drawn(model, data, instance), Reference(model, instance, (CAMERA.width, CAMERA.height))
    try:
        for T_world_camera in VIEWS:
            colour, ids, metres = ours.draw(data, CAMERA, T_world_camera)
            expected, expected_ids, expected_m = theirs.draw(data, CAMERA, T_world_camera)
            assert len(np.unique(expected_ids)) > 5
            assert psnr(colour, expected) > least_db
            assert worst_iou(expected_ids, ids, 20) > 0.99
            same = ids == expected_ids
            assert same.mean() > 0.999
            assert np.quantile(np.abs(metres - expected_m)[same], 0.995) < 0.001
    finally:
        theirs.close()
        ours.close()


@pytest.mark.parametrize(
    "lamps",
    [(), ("sun",), ("sun+shadow",), ("spot",), ("spot+shadow",), ("sun+shadow", "spot+shadow"), ("spot", "sun+shadow")],
    ids=lambda lamps: " and ".join(lamps) or "none",
)
def test_lamps_of_every_kind_shine_and_cast_shadows_as_mujoco_draws_them(lamps: tuple[str, ...]) -> None:
    check_alike(*shelf(lamps))


def test_clear_things_show_what_is_behind_them_as_mujoco_draws_them() -> None:
    check_alike(*shelf(("sun+shadow", "spot"), clear=True))


def test_shadows_move_with_what_casts_them_and_can_be_switched_off() -> None:
    import mujoco

    model, data, instance = shelf(("sun+shadow",))
    shaded, plain = Drawn(model, data, instance), Drawn(model, data, instance, shadows=False)
    try:
        dark, _, _ = shaded.draw(data, CAMERA, VIEWS[0])
        light, _, _ = plain.draw(data, CAMERA, VIEWS[0])
        assert (light.astype(int) - dark > 40).any(axis=-1).mean() > 0.01
        data.qpos[:3] += [0.0, 0.0, 5.0]
        mujoco.mj_forward(model, data)
        moved, ids, _ = shaded.draw(data, CAMERA, VIEWS[0])
        assert model.ngeom + 299 not in ids
        assert (moved.astype(int) - dark > 40).any(axis=-1).mean() > 0.005
    finally:
        plain.close()
        shaded.close()


def test_no_bit_depends_on_what_was_drawn_before_or_on_other_contexts() -> None:
    import mujoco

    model, data, instance = shelf(("sun+shadow", "spot+shadow"), clear=True)
    one = Drawn(model, data, instance)
    try:
        first = one.draw(data, CAMERA, VIEWS[0])
        data.qpos[:3] += [0.1, 0.2, 0.3]
        mujoco.mj_forward(model, data)
        one.draw(data, CAMERA, VIEWS[1])
        one.draw(data, Camera("large", 200, 170, 150.0, 150.0, 100.0, 85.0), VIEWS[1])
        data.qpos[:3] -= [0.1, 0.2, 0.3]
        data.qpos[:] = model.qpos0
        mujoco.mj_forward(model, data)
        other = Drawn(model, data, instance)
        try:
            for drawn in (one, other):
                again = drawn.draw(data, CAMERA, VIEWS[0])
                assert [image.tobytes() for image in again] == [image.tobytes() for image in first]
        finally:
            other.close()
    finally:
        one.close()


def test_an_arm_at_a_table_looks_as_mujoco_draws_it() -> None:
    import mujoco

    from nimbusd.renderers.mujoco.view import MujocoView
    from nimbusd.renderers.stacked import render_stacked

    _, layout, demo = planned()
    qpos = demo.qpos[[0, len(demo) // 2]]
    cameras = [entry.camera for entry in layout.cameras]
    poses = camera_poses(layout, qpos)
    view = MujocoView(layout, "cpu")
    try:
        tiles = {(row, name): tile for row, name, tile in render_stacked(view, qpos, cameras, poses, 2)}
        data = mujoco.MjData(view.world.model)
        reference = Reference(view.world.model, view.world.instance, (160, 120))
        try:
            for row, state in enumerate(qpos):
                data.qpos[:] = state
                mujoco.mj_forward(view.world.model, data)
                for camera in cameras:
                    expected, ids, metres = reference.draw(data, camera, poses[camera.name][row])
                    tile = tiles[row, camera.name]
                    assert psnr(tile.rgb, expected) > 40
                    assert tile.instance is not None
                    assert tile.depth_m is not None
                    assert worst_iou(ids, tile.instance, 20) > 0.99
                    same = tile.instance == ids
                    assert np.quantile(np.abs(tile.depth_m - metres)[same], 0.995) < 0.001
        finally:
            reference.close()
    finally:
        view.close()


def test_kinds_that_are_not_drawn_are_refused_by_name() -> None:
    import mujoco

    from nimbusd.renderers.mujoco.view import raster_of
    from nimbusd.stages.errors import RenderError
    from nimbusd.stages.workflow.sim.world.bodies import VISIBLE_GROUP

    spec = mujoco.MjSpec()
    hills = spec.add_hfield(name="hills", nrow=3, ncol=3, size=[1, 1, 0.2, 0.1])
    hills.userdata = np.zeros(9)
    spec.worldbody.add_geom(name="ground", type=mujoco.mjtGeom.mjGEOM_HFIELD, hfieldname="hills", group=VISIBLE_GROUP)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with pytest.raises(RenderError, match="'ground' is a mjGEOM_HFIELD"):
        raster_of(None, model, data, np.ones(1, np.uint16), shadows=True)


@pytest.mark.parametrize("missing", ["moderngl", "mujoco.egl"])
def test_where_there_is_nothing_to_draw_with_the_error_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nimbusd.renderers.mujoco.gl import open_device
    from nimbusd.stages.errors import BackendUnavailable

    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'nimbusd\[mujoco\]'.*libegl1"):
        open_device("cpu")

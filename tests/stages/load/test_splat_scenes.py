from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from nimbusd.renderers.raycast import RayCaster
from nimbusd.renderers.splats.align import misalignment_px, worst_side_px
from nimbusd.renderers.splats.cpu import CpuRasterizer
from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.splats.from_mesh import sample_splats
from nimbusd.stages.load.splats.loader import GSMeshArgs, GSMeshConfig, GSMeshLoader
from nimbusd.stages.load.splats.proxy import occupied_voxels, voxel_mesh
from nimbusd.stages.load.splats.tool import main
from nimbusd.stages.plan.nav import CameraArgs, NavArgs, NavPlanner
from nimbusd.stages.types import F64, Camera, Material, Scene, SceneObject, Splats
from tests.stages.load.test_splat_files import write_ply
from tests.support.analytic_scenes import plane
from tests.support.nav_scenes import cluttered_room, empty_room
from tests.support.splat_reference import looking_at, random_splats

CAMERA = Camera("front", 160, 120, 110.0, 110.0, 80.0, 60.0)
POSES = np.stack([looking_at((4.2, 2.2, 1.3), (4.2 + np.cos(a), 2.2 + np.sin(a), 1.1)) for a in (0.2, 1.8, 3.3, 5.0)])


def write_room(tmp_path: Path, splats: Splats, scene: Scene) -> tuple[Path, Path]:
    """The cloud as .ply and the objects as .obj, both z up."""
    lines, first = [], 1
    for obj in scene.objects:
        lines.append(f"o {obj.name}")
        lines += [f"v {x} {y} {z}" for x, y, z in obj.world_vertices()]
        lines += [f"f {a} {b} {c}" for a, b, c in obj.faces + first]
        first += len(obj.vertices)
    mesh = tmp_path / "room.obj"
    mesh.write_text("\n".join(lines))
    return write_ply(tmp_path / "room.ply", splats), mesh


def apart(scene: Scene) -> F64:
    """Distances in pixels of known mesh points to the splats' depth, from all poses."""
    assert scene.splats is not None
    rasterizer, caster = CpuRasterizer(), RayCaster(scene)
    rasterizer.load(scene.splats)
    caster.prepare(frozenset())
    images = rasterizer.render(CAMERA, POSES, (0.0, 0.0, 0.0))
    depth = np.where(images.coverage > 0.5, images.depth_m, 0)
    return np.concatenate(
        [misalignment_px(CAMERA, caster.cast(CAMERA, T, {})[0], depth[k]) for k, T in enumerate(POSES)]
    )


def apart_by_side(scene: Scene) -> float:
    """The check of the renderer, at the worst of all poses."""
    assert scene.splats is not None
    rasterizer, caster = CpuRasterizer(), RayCaster(scene)
    rasterizer.load(scene.splats)
    caster.prepare(frozenset())
    depth = rasterizer.render(CAMERA, POSES, (0.0, 0.0, 0.0)).depth_m
    return max(worst_side_px(CAMERA, T, caster.cast(CAMERA, T, {})[0], depth[k]) for k, T in enumerate(POSES))


def test_gaussians_sampled_from_a_mesh_lie_on_it_and_show_its_colours() -> None:
    red = plane(half_m=1.0, material=Material("red", (1.0, 0.0, 0.0)))
    splats = sample_splats([red], 2000, seed=3)
    assert 1990 <= len(splats) <= 2010
    np.testing.assert_allclose(splats.means[:, 2], 0, atol=1e-6)
    assert np.abs(splats.means[:, :2]).max() <= 1.0
    np.testing.assert_allclose(np.abs(splats.means[:, :2]).mean(axis=0), 0.5, atol=0.02)  # evenly spread
    assert splats.sh[:, 0, 0].min() > 0.5
    assert splats.sh[:, 0, 1].max() < -1.0


def test_sampling_repeats_itself() -> None:
    objects = cluttered_room(np.random.default_rng(1)).objects
    first, second = (Scene("room", objects, splats=sample_splats(objects, 3000, seed=9)) for _ in range(2))
    assert first.content_hash == second.content_hash
    assert first.content_hash != replace(first, splats=sample_splats(objects, 3000, seed=10)).content_hash
    assert first.content_hash != replace(first, splats=None).content_hash


def test_a_texture_is_shown_the_right_way_up() -> None:
    texture = np.zeros((2, 1, 3), np.uint8)
    texture[0] = 255  # white at the top, v = 1
    wall = SceneObject(
        "wall", "wall", 1,
        np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]], np.float32), np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        (Material("picture", (1, 1, 1), texture),), np.zeros(2, np.int32),
        np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]], np.float32),
    )  # fmt: skip
    splats = sample_splats([wall], 1000)
    above = splats.means[:, 2] > 0.5
    assert splats.sh[above, 0].min() > 0
    assert splats.sh[~above, 0].max() < -1.5


def test_a_derived_cloud_is_seen_within_two_pixels_of_its_mesh() -> None:
    scene = cluttered_room(np.random.default_rng(3))
    scene = replace(scene, splats=sample_splats(scene.objects, 30_000))
    distances = apart(scene)
    assert len(distances) > 4000
    assert np.median(distances) < 0.5
    assert np.percentile(distances, 95) < 2
    assert apart_by_side(scene) < 1


@pytest.mark.parametrize("shift", [(0.1, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 0.1)])
def test_a_cloud_shifted_by_ten_centimetres_is_noticed(shift: tuple[float, float, float]) -> None:
    scene = cluttered_room(np.random.default_rng(3))
    T = np.eye(4)
    T[:3, 3] = shift
    scene = replace(scene, splats=replace(sample_splats(scene.objects, 30_000), T_world_splats=T))
    assert apart_by_side(scene) > 5


@pytest.mark.parametrize("up", ["z", "-y"])
def test_splats_in_a_frame_of_their_own_are_aligned_with_their_proxy(tmp_path: Path, up: str) -> None:
    """Written in centimetres with another axis up, a room comes back where its mesh is."""
    scene = cluttered_room(np.random.default_rng(3))
    splats = sample_splats(scene.objects, 30_000)
    if up == "-y":  # the file's (x, y, z) is the room's (x, -z, y)
        turn = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float64)
        half = np.sqrt(0.5)
        w, x, y, z = splats.quats.T  # the file's axes are the room's turned by 90 degrees about x
        quats = np.stack([half * (w - x), half * (x + w), half * (y - z), half * (z + y)], axis=1)
        splats = replace(splats, means=(splats.means @ turn).astype(np.float32), quats=quats.astype(np.float32))
    cloud, mesh = write_room(tmp_path, replace(splats, means=100 * splats.means, scales=100 * splats.scales), scene)
    config = GSMeshConfig.model_validate(
        {"name": "room", "splats": cloud, "proxy": mesh, "unit_m": 0.01, "up_axis": up}
    )
    loaded = GSMeshLoader(GSMeshArgs()).load_asset(config)
    assert loaded.provenance["derived"] == "nothing"
    assert np.percentile(apart(loaded), 95) < 2
    assert loaded.splats is not None
    matrix = {"name": "room", "splats": cloud, "proxy": mesh, "T_world_splats": loaded.splats.T_world_splats.tolist()}
    again = GSMeshLoader(GSMeshArgs()).load_asset(GSMeshConfig.model_validate(matrix))
    assert again.content_hash == loaded.content_hash


def test_a_proxy_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    scene = cluttered_room(np.random.default_rng(3))
    cloud, mesh = write_room(tmp_path, sample_splats(scene.objects, 5000), scene)
    config = GSMeshConfig(name="room", splats=cloud, proxy=mesh, up_axis="z", unit_m=0.01)
    with pytest.raises(AssetError, match="do not lie on each other"):
        GSMeshLoader(GSMeshArgs()).load_asset(config)


def test_a_proxy_made_of_splats_can_be_planned_on(tmp_path: Path) -> None:
    room = empty_room((0.0, 6.0), (0.0, 5.0))
    room.box("table", (2.5, 3.5), (2.0, 3.0), (0.0, 0.7))
    cloud, _ = write_room(tmp_path, sample_splats(room.objects, 40_000), room.scene())
    scene = GSMeshLoader(GSMeshArgs()).load_asset(GSMeshConfig(name="room", splats=cloud, up_axis="z"))
    assert scene.provenance["derived"] == "proxy"
    low, high = scene.bounds()
    np.testing.assert_allclose(low, (-0.1, -0.1, -0.1), atol=0.17)
    np.testing.assert_allclose(high, (6.1, 5.1, 2.5), atol=0.17)
    planner = NavPlanner(NavArgs(min_path_m=2.0, max_frames=60, cameras=(CameraArgs(width=32, height=24),)))
    (floor,) = planner.floors(scene)
    assert floor.z_m == pytest.approx(0.0, abs=0.09)
    seq = planner.gen_sequence(scene, np.random.default_rng(1))
    path = seq.T_world_camera["front"][:, :2, 3]
    inside = (path > (2.4, 1.9)).all(axis=1) & (path < (3.6, 3.1)).all(axis=1)
    assert len(seq) >= 8
    assert not inside.any()  # the table is in the way


def test_voxels_close_a_surface_and_drop_floaters() -> None:
    ball = random_splats(1, 1, size_m=0.02)
    floater = replace(ball, means=np.array([[3, 3, 3]], np.float32), opacities=np.ones(1, np.float32))
    board = sample_splats([plane(half_m=0.5)], 2000)
    fields = ("means", "scales", "quats", "opacities", "sh")
    both = Splats(*(np.concatenate([getattr(board, name), getattr(floater, name)]) for name in fields))
    voxels = occupied_voxels(both, 0.1, min_cover=0.5, min_cells=20)
    assert len(voxels.cells) <= 13**2
    assert len(set(voxels.cells[:, 2])) == 1  # a level surface fills one layer
    assert len(np.unique(voxels.cells[:, :2], axis=0)) >= 100  # no hole in a square metre
    mesh = voxel_mesh(voxels)
    a, b, c = (mesh.world_vertices()[mesh.faces[:, k]] for k in range(3))
    assert mesh.world_vertices()[:, 2].max() == pytest.approx(0.0, abs=0.013)  # the top is where the surface is
    volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6  # of a closed mesh that faces outwards
    assert volume == pytest.approx(len(voxels.cells) * 0.001, rel=1e-6)


def test_splats_too_thin_for_any_voxel_are_told() -> None:
    with pytest.raises(AssetError, match=r"no voxel of 0\.5 m is filled"):
        occupied_voxels(random_splats(1, 5, size_m=0.01), 0.5, min_cover=0.5, min_cells=1)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"splats": "room.splat"}, "use one of .ply, .sog"),
        ({"proxy": "room.dwg"}, "use one of .obj"),
        ({"unit_m": 0.5, "T_world_splats": np.eye(4).tolist()}, "not both"),
        ({"T_world_splats": np.diag([1.0, 1.0, 2.0, 1.0]).tolist()}, "scale alike"),
        ({"T_world_splats": np.diag([-1.0, 1.0, 1.0, 1.0]).tolist()}, "without mirroring"),
        ({"T_world_splats": np.diag([1.0, 1.0, 1.0, 2.0]).tolist()}, "last row"),
    ],
)
def test_a_wrong_scene_entry_is_told_with_the_way_out(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        GSMeshConfig.model_validate({"name": "room", **wrong})


def test_the_tools_make_a_mesh_of_splats_and_splats_of_a_mesh_that_fit_each_other(tmp_path: Path) -> None:
    from click.testing import CliRunner

    scene = cluttered_room(np.random.default_rng(3))
    _, mesh = write_room(tmp_path, sample_splats(scene.objects, 1000), scene)
    cloud, proxy = tmp_path / "sampled.ply", tmp_path / "proxy.obj"
    sampled = CliRunner().invoke(main, ["sample", str(mesh), str(cloud), "--count", "30000"])
    assert sampled.exit_code == 0, sampled.output
    assert b"comment derived: sampled from room.obj" in cloud.read_bytes()[:200]
    made = CliRunner().invoke(main, ["proxy", str(cloud), str(proxy), "--up-axis", "z", "--voxel-m", "0.1"])
    assert made.exit_code == 0, made.output
    assert proxy.read_text().startswith("# derived: voxels of 0.1 m filled by sampled.ply")
    loader = GSMeshLoader(GSMeshArgs())
    exact = loader.load_asset(GSMeshConfig(name="room", splats=cloud, proxy=mesh, up_axis="z"))
    assert np.percentile(apart(exact), 95) < 2
    loader.load_asset(GSMeshConfig(name="room", splats=cloud, proxy=proxy, up_axis="z"))  # overlaps
    refused = CliRunner().invoke(main, ["proxy", str(mesh), str(proxy)])
    assert refused.exit_code == 1
    assert "of an unknown kind" in refused.output

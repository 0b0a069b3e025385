"""A Blender renderer from open() to close(): reuse, clean-up, determinism, moved objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nimbusd.renderers.blender import renderer as blender_module
from nimbusd.renderers.blender.renderer import BlenderArgs, BlenderProcRenderer
from nimbusd.renderers.blender.scene import BlenderScene
from nimbusd.stages.errors import BackendUnavailable, RenderError
from nimbusd.stages.types import U8, Camera, Light, Material, Scene
from tests.support.analytic_scenes import ODD_CAMERA, WHITE_LAMP, box, lit, look_at, moved, plane, shot, sphere

pytestmark = pytest.mark.blender

EYE = look_at((2.4, -2.9, 1.7), (0.2, 0.1, 0.5))
SMALL = Camera("front", width=64, height=48, fx=50.0, fy=50.0, cx=32.0, cy=24.0)
WIDE = Camera("wide", width=48, height=32, fx=20.0, fy=20.0, cx=24.0, cy=16.0)
FAST = BlenderArgs(samples=1, denoiser="none", bounces=0)


@pytest.fixture
def renderer(tmp_path: Path) -> Iterator[BlenderProcRenderer]:
    made = BlenderProcRenderer(FAST.model_copy(update={"scratch": tmp_path / "scratch"}))
    made.open("cpu")
    yield made
    made.close()


def scene(name: str = "one", texture_seed: int = 0) -> Scene:
    texture = np.random.default_rng(texture_seed).integers(0, 256, (8, 8, 3), np.uint8)
    block = box(2, (0.8, 0.6, 1.1), moved(z=0.55), Material("paint", texture=texture))
    block = replace(block, uvs=np.zeros((12, 3, 2), np.float32))
    return lit(name, plane(1), block, sphere(7, 0.4, moved(1.0, 0.5, 0.4), name="ball"))


def data_counts() -> dict[str, int]:
    import bpy

    kinds = ("meshes", "objects", "materials", "images", "lights", "worlds", "cameras", "textures", "node_groups")
    return {kind: len(getattr(bpy.data, kind)) for kind in kinds}


def test_a_scene_of_the_same_content_is_not_loaded_again(
    renderer: BlenderProcRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    class Counted(BlenderScene):
        def __init__(self, bpy: object, scene: Scene) -> None:
            loads.append(scene.name)
            super().__init__(bpy, scene)

    monkeypatch.setattr(blender_module, "BlenderScene", Counted)
    for made in (scene("a"), scene("b"), scene("c", texture_seed=1)):
        renderer.load(made)
    assert loads == ["a", "c"]


def test_loading_scene_after_scene_leaves_nothing_of_the_old_ones(renderer: BlenderProcRenderer) -> None:
    empty = data_counts()
    renderer.load(scene())
    renderer.gen_obs(shot(SMALL, EYE))
    loaded = data_counts()
    for number in range(4):
        renderer.load(scene(texture_seed=number + 1))
        renderer.gen_obs(shot(SMALL, EYE))
    assert data_counts() == loaded
    renderer.load(Scene("bare", (plane(),)))
    # The one image left is Blender's own "Render Result".
    assert data_counts() == empty | {"meshes": 1, "objects": 2, "materials": 1, "worlds": 1, "images": 1}


def test_a_scene_that_does_not_fit_is_refused_and_leaves_nothing(renderer: BlenderProcRenderer) -> None:
    before = data_counts()
    good = plane()
    torn = replace(good, name="torn", instance_id=2, faces=good.faces + 4)
    with pytest.raises(RenderError, match="'torn' has faces that name vertices it does not have"):
        renderer.load(Scene("torn", (good, torn)))
    shear = np.eye(4)
    shear[0, 1] = 0.5
    with pytest.raises(RenderError, match="sheared"):
        renderer.load(Scene("sheared", (replace(good, T_world_object=shear),)))
    assert data_counts() == before


def test_a_scene_that_was_refused_can_be_followed_by_a_good_one(renderer: BlenderProcRenderer) -> None:
    renderer.load(scene())
    with pytest.raises(RenderError):
        renderer.load(Scene("torn", (replace(plane(), faces=plane().faces + 4),)))
    with pytest.raises(RenderError, match="no scene is loaded"):
        renderer.gen_obs(shot(SMALL, EYE))
    renderer.load(scene())
    assert renderer.gen_obs(shot(SMALL, EYE)).frames["front"].rgb.any()


def test_equal_seeds_give_equal_pixels_and_others_do_not(tmp_path: Path) -> None:
    images: list[U8] = []
    for seed in (3, 3, 4):
        made = BlenderProcRenderer(BlenderArgs(preset="draft", samples=2, seed=seed, scratch=tmp_path))
        made.open("cpu")
        made.load(scene())
        # The pixels of a frame do not depend on the frames before it either.
        poses = (EYE, look_at((1.0, -3.0, 1.0), (0.0, 0.0, 0.5)))
        images.append(made.gen_obs(shot(SMALL, *(poses if len(images) == 0 else poses[1:]))).frames["front"].rgb[-1])
        made.close()
    assert (images[0] == images[1]).all()
    assert (images[0] != images[2]).any()


def test_a_moved_object_is_seen_where_the_sequence_puts_it_and_back_after_it(renderer: BlenderProcRenderer) -> None:
    overhead = np.eye(4)
    overhead[2, 3] = 5.0  # looks straight down
    camera = Camera("top", 100, 100, 100.0, 100.0, 50.0, 50.0)
    renderer.load(Scene("floor", (plane(), box(2, (0.5, 0.5, 0.5), moved(z=0.25), WHITE_LAMP)), sky_strength=1.0))
    still = renderer.gen_obs(shot(camera, overhead)).frames["top"]
    path = np.stack([moved(1.0, 0.5, 0.25), moved(-1.0, -0.5, 0.75)])
    frames = renderer.gen_obs(shot(camera, overhead, overhead, T_world_object={"box": path})).frames["top"]
    again = renderer.gen_obs(shot(camera, overhead)).frames["top"]
    assert still.instance is not None
    assert frames.instance is not None
    assert frames.depth_m is not None
    assert again.instance is not None
    for t, (x, y, z) in enumerate(path[:, :3, 3]):
        top = 5.0 - (z + 0.25)
        rows, columns = np.nonzero((frames.instance[t] == 2) & (np.abs(frames.depth_m[t] - top) < 1e-4))
        assert abs(columns.mean() + 0.5 - (50 + 100 * x / top)) < 0.5
        assert abs(rows.mean() + 0.5 - (50 - 100 * y / top)) < 0.5
        # The picture changes there too.
        assert (frames.rgb[t] != still.rgb[0])[rows, columns].mean() > 0.9
    assert (again.rgb == still.rgb).all()
    assert (again.instance == still.instance).all()


def test_each_camera_gets_its_own_frames(renderer: BlenderProcRenderer) -> None:
    poses = np.stack([EYE, EYE])
    seq = replace(shot(SMALL, EYE), cameras=(SMALL, WIDE), T_world_camera={"front": poses, "wide": poses})
    renderer.load(scene())
    frames = renderer.gen_obs(seq).frames
    assert frames["front"].rgb.shape == (2, 48, 64, 3)
    assert frames["wide"].rgb.shape == (2, 32, 48, 3)
    assert frames["wide"].depth_m is not None
    assert frames["wide"].depth_m.dtype == np.float32
    assert frames["wide"].instance is not None
    assert frames["wide"].instance.dtype == np.uint16


def test_labels_name_every_object_and_semantic_ids_follow_them(renderer: BlenderProcRenderer) -> None:
    renderer.load(scene())
    obs = renderer.gen_obs(shot(ODD_CAMERA, EYE))
    frames = obs.frames["odd"]
    assert [(label.instance_id, label.name, label.category) for label in obs.labels] == [
        (1, "floor", "floor"),
        (2, "box", "box"),
        (7, "ball", "ball"),
    ]
    assert frames.instance is not None
    assert frames.semantic is not None
    for label in obs.labels:
        assert set(np.unique(frames.semantic[frames.instance == label.instance_id])) == {label.semantic_id}
    assert not frames.semantic[frames.instance == 0].any()


def test_depth_and_segmentation_can_be_left_out(tmp_path: Path) -> None:
    made = BlenderProcRenderer(FAST.model_copy(update={"depth": False, "segmentation": False, "scratch": tmp_path}))
    made.open("cpu")
    made.load(scene())
    frames = made.gen_obs(shot(SMALL, EYE)).frames["front"]
    made.close()
    assert frames.depth_m is None
    assert frames.instance is None
    assert frames.semantic is None


def test_it_beats_at_every_frame_and_says_what_it_rendered_with(
    renderer: BlenderProcRenderer, capfd: pytest.CaptureFixture[str]
) -> None:
    beats: list[None] = []
    renderer.load(scene())
    renderer.beat = lambda: beats.append(None)
    obs = renderer.gen_obs(shot(SMALL, EYE, EYE, EYE))
    assert len(beats) >= 3
    assert renderer.device_name.startswith("CPU (")
    assert obs.renderer["device"] == renderer.device_name
    assert obs.renderer["samples"] == 1
    assert obs.renderer["blender"].startswith("4.5")
    print("after")
    assert capfd.readouterr().out == "after\n"


def test_a_sequence_that_moves_a_stranger_is_refused(renderer: BlenderProcRenderer) -> None:
    renderer.load(scene())
    with pytest.raises(RenderError, match="'ghost', which scene 'one' does not have"):
        renderer.gen_obs(shot(SMALL, EYE, EYE, T_world_object={"ghost": np.stack([np.eye(4), 2 * np.eye(4)])}))


def test_the_temporary_folder_is_gone_after_close_also_when_a_frame_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("no space left")

    made = BlenderProcRenderer(FAST.model_copy(update={"scratch": tmp_path}))
    made.open("cpu")
    assert len(list(tmp_path.iterdir())) == 1
    made.load(scene())
    monkeypatch.setattr(blender_module, "read_bmp", broken)
    with pytest.raises(RenderError, match="camera 'front': no space left"):
        made.gen_obs(shot(SMALL, EYE))
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_a_slot_without_a_gpu_is_refused_and_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bpy

    cycles = type(bpy.context.preferences.addons["cycles"].preferences)
    monkeypatch.setattr(cycles, "get_devices_for_type", lambda *_: [])
    made = BlenderProcRenderer(FAST.model_copy(update={"scratch": tmp_path}))
    with pytest.raises(BackendUnavailable, match="no OPTIX or CUDA device for 'cuda:0'"):
        made.open("cuda:0")
    assert list(tmp_path.iterdir()) == []


def test_lamps_of_every_kind_light_the_room(renderer: BlenderProcRenderer) -> None:
    down = moved(z=3.0)
    dark = renderer_mean(renderer, ())
    assert dark == 0
    for lamp in (
        Light("lamp", "point", down, 200.0),
        Light("lamp", "area", down, 200.0),
        Light("lamp", "sun", down, 3.0),
    ):
        assert renderer_mean(renderer, (lamp,)) > 40


def renderer_mean(renderer: BlenderProcRenderer, lights: tuple[Light, ...]) -> float:
    renderer.load(Scene("lights", (plane(),), lights))
    return float(renderer.gen_obs(shot(SMALL, look_at((0.5, -2.0, 1.5), (0.0, 0.0, 0.0)))).frames["front"].rgb.mean())

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from nimbusd.renderers.splats.device import choose_rasterizer
from nimbusd.renderers.splats.renderer import GsArgs, SCGSRenderer
from nimbusd.stages.errors import BackendUnavailable, RenderError
from nimbusd.stages.load.splats.from_mesh import sample_splats
from nimbusd.stages.types import Camera, Scene, Sequence
from tests.support.analytic_scenes import shot
from tests.support.nav_scenes import cluttered_room
from tests.support.splat_reference import looking_at

CAMERA = Camera("front", 96, 64, 70.0, 70.0, 48.0, 32.0)
NO_CUDA = importlib.util.find_spec("gsplat") is None or importlib.util.find_spec("torch") is None


def room(sky: float = 0.0) -> Scene:
    scene = cluttered_room(np.random.default_rng(3))
    return replace(scene, splats=sample_splats(scene.objects, 15_000), sky_color=(1.0, 0.0, 0.0), sky_strength=sky)


def walk(count: int = 11) -> Sequence:
    angles = np.linspace(0, 1.5, count)
    return shot(CAMERA, *(looking_at((4.2, 2.2, 1.3), (4.2 + np.cos(a), 2.2 + np.sin(a), 1.2)) for a in angles))


def renderer(**args: object) -> SCGSRenderer:
    made = SCGSRenderer(GsArgs.model_validate({"backend": "cpu", **args}))
    made.open("cpu")
    return made


def test_a_sequence_is_seen_with_colour_depth_coverage_and_the_proxys_labels() -> None:
    scene, seq = room(), walk()
    made = renderer(segmentation=True, max_misalignment_px=2.0)
    beats: list[int] = []
    made.beat = lambda: beats.append(1)
    made.load(scene)
    obs = made.gen_obs(seq)
    made.close()
    frames = obs.frames["front"]
    assert frames.rgb.shape == (11, 64, 96, 3)
    assert frames.rgb.dtype == np.uint8
    assert frames.depth_m is not None
    assert frames.coverage is not None
    assert frames.instance is not None
    assert frames.semantic is not None
    assert (frames.depth_m[frames.coverage < 0.5] == 0).all()
    assert (frames.depth_m[frames.coverage >= 0.5] > 0).all()
    names = {label.instance_id: label for label in obs.labels}
    assert {names[i].category for i in np.unique(frames.instance[frames.instance > 0])} >= {"wall"}
    assert all(
        (frames.semantic[frames.instance == i] == names[i].semantic_id).all()
        for i in np.unique(frames.instance[frames.instance > 0])
    )
    json.dumps(obs.renderer)
    assert obs.renderer["gaussians"] == len(scene.splats or ())
    assert len(beats) > 2


def test_what_no_gaussian_covers_shows_the_sky_and_has_no_depth() -> None:
    up = shot(CAMERA, looking_at((4.2, 2.2, 1.3), (4.2, 2.3, 9.0)))  # the room has no ceiling
    made = renderer()
    made.load(room(sky=1.0))
    obs = made.gen_obs(up)
    frames = obs.frames["front"]
    assert frames.depth_m is not None
    open_sky = frames.depth_m == 0
    assert open_sky.mean() > 0.3
    assert obs.renderer["hole_share"] == pytest.approx(open_sky.mean(), abs=1e-6)
    assert frames.rgb[0, 32, 48].tolist() == [255, 0, 0]
    made.close()


def test_a_colour_of_the_jobs_own_takes_the_skys_place_and_depth_can_be_left_out() -> None:
    made = renderer(background=(0.0, 1.0, 0.0), depth=False)
    made.load(room(sky=1.0))
    frames = made.gen_obs(shot(CAMERA, looking_at((4.2, 2.2, 1.3), (4.2, 2.3, 9.0)))).frames["front"]
    assert frames.rgb[0, 32, 48].tolist() == [0, 255, 0]
    assert frames.depth_m is None
    made.close()


def test_splats_that_lie_beside_their_proxy_are_refused_with_the_distance() -> None:
    scene = room()
    assert scene.splats is not None
    T = np.eye(4)
    T[:3, 3] = 0.2
    made = renderer(max_misalignment_px=2.0)
    made.load(replace(scene, splats=replace(scene.splats, T_world_splats=T)))
    with pytest.raises(RenderError, match=r"lie \d+\.\d pixels apart"):
        made.gen_obs(walk(3))
    made.close()


def test_what_splats_cannot_do_is_told() -> None:
    made = renderer()
    with pytest.raises(RenderError, match="no scene is loaded"):
        made.gen_obs(walk(1))
    with pytest.raises(RenderError, match="has no splats"):
        made.load(replace(room(), splats=None))
    made.load(room())
    moved = room().objects[-1]
    poses = np.stack([moved.T_world_object, moved.T_world_object + 0.1])
    with pytest.raises(RenderError, match="SCGSRenderer shows scenes that stand still, but the sequence moves"):
        made.gen_obs(replace(walk(2), T_world_object={moved.name: poses}))
    made.close()
    with pytest.raises(ValidationError, match="three values in 0…1"):
        GsArgs(background=(2.0, 0.0, 0.0))


@pytest.mark.skipif(not NO_CUDA, reason="gsplat is installed here")
@pytest.mark.parametrize("device", ["auto", "cuda:0", "cpu"])
def test_cuda_that_is_not_there_is_one_sentence_and_auto_takes_the_cpu(
    device: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BackendUnavailable, match=r"pip install 'nimbusd\[gs-cuda\]'"):
        choose_rasterizer(device, "cuda", 0)
    assert choose_rasterizer(device, "auto", 1).device_name == "CPU (1 threads)"
    assert ("drawn on the CPU, not on cuda:0" in caplog.text) == (device == "cuda:0")


def test_gaussians_cross_a_job_file_to_a_dataset(tmp_path: Path) -> None:
    """Load, plan, render and store by configuration alone, through the stages that workers run."""
    from nimbusd.job import read_job
    from nimbusd.stages.runner import Components, run_stages
    from nimbusd.stages.types import EpisodeRequest

    example = Path(__file__).parents[2] / "examples" / "nav_gs.yaml"
    small = [
        "pipeline.load.args.gaussians=60000",
        "pipeline.plan.args.max_frames=24",
        "pipeline.plan.args.fps=2",
    ]
    small += ["pipeline.render.args.max_misalignment_px=null", "pipeline.load.args.texture_px=32"]
    small += ["pipeline.plan.args.cameras=[{name: front, width: 64, height: 48}]", "scenes.0.count=1"]
    job = read_job(example, output=tmp_path, overrides=small)
    components = Components(job.make("load"), None, job.make("plan"), job.make("render"), job.make("store"))
    (tmp_path / ".pieces").mkdir()
    requests = [EpisodeRequest(job.name, "apartment_000", 0)]
    (episode,) = run_stages(
        components, requests, job_seed=job.seed, scene_config=job.scene_config, output=tmp_path, context={}
    )
    components.close()
    assert episode.failure is None, episode.failure
    assert episode.piece is not None
    assert episode.piece.length >= 8
    assert episode.scene is not None
    assert episode.scene.provenance["derived"] == "splats"

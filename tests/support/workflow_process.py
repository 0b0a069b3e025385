"""A planning, a rendering or a fused process of one job with a workflow, for tests.

usage: python -m tests.support.workflow_process plan|render|fused SETTINGS.json
The settings name the workflow, its task file, folders and the order of episodes. What crosses between the planning and
the rendering process are files with one packed Sequence each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nimbusd.stages.base import SceneConfig
from nimbusd.stages.packing import pack_sequence, unpack_sequence
from nimbusd.stages.registry import create
from nimbusd.stages.runner import Components, LoadIterator, PlanIterator, RandomizeIterator, run_stages
from nimbusd.stages.types import Episode, EpisodeRequest
from nimbusd.stages.workflow.env_components import EnvSceneConfig

ENV = "nimbusd.stages.workflow.env_components"


def components_of(settings: dict[str, Any]) -> Components:
    loader = {"workflow_type": settings["workflow"], "workflow_args": settings.get("workflow_args", {})}
    store = settings.get("store", {"media": "image"})
    return Components(
        loader=create(f"{ENV}:EnvLoader", "load", loader),
        randomizer=create(f"{ENV}:EnvRandomizer", "randomize", settings.get("randomize", {})),
        planner=create(f"{ENV}:EnvPlanner", "plan", settings.get("plan", {})),
        renderer=create(f"{ENV}:EnvRenderer", "render", settings.get("render", {})),
        writer=create(settings.get("writer", "nimbusd.stages.store.writers.env:EnvWriter"), "store", store),
    )


def requests_of(settings: dict[str, Any]) -> Iterator[EpisodeRequest]:
    for index in settings["episodes"]:
        yield EpisodeRequest("toy", "lift", index, variant=index // 2)


def scene_of(settings: dict[str, Any]) -> SceneConfig:
    return EnvSceneConfig(name="lift", cfg_path=Path(settings["tasks"]), **settings.get("scene", {}))


def episodes_until_planned(settings: dict[str, Any], components: Components) -> Iterator[Episode]:
    loaded = LoadIterator(requests_of(settings), components.loader, lambda _: scene_of(settings), _output(settings), {})
    yield from RandomizeIterator(loaded, components.randomizer, settings["seed"])


def plan(settings: dict[str, Any], components: Components) -> None:
    backlog = Path(settings["backlog"])
    backlog.mkdir(exist_ok=True)
    for episode in PlanIterator(episodes_until_planned(settings, components), components.planner, settings["seed"]):
        _check(episode)
        assert episode.sequence is not None
        (backlog / f"{episode.request.index}").write_bytes(pack_sequence(episode.sequence))


def render(settings: dict[str, Any], components: Components) -> None:
    assert components.renderer is not None
    assert components.writer is not None
    for episode in episodes_until_planned(settings, components):
        _check(episode)
        assert episode.scene is not None
        seq = unpack_sequence(Path(settings["backlog"], f"{episode.request.index}").read_bytes())
        components.renderer.load(episode.scene)
        components.writer.save_data(seq, components.renderer.gen_obs(seq), episode)


def fused(settings: dict[str, Any], components: Components) -> None:
    episodes = run_stages(
        components,
        requests_of(settings),
        job_seed=settings["seed"],
        scene_config=lambda _: scene_of(settings),
        output=_output(settings),
        context={},
    )
    for episode in episodes:
        _check(episode)


def _output(settings: dict[str, Any]) -> Path:
    return Path(settings["output"])


def _check(episode: Episode) -> None:
    if episode.failure is not None:
        sys.exit(f"{episode.request.episode_id}: {episode.failure.reason}: {episode.failure.detail}")


def main() -> None:
    settings = json.loads(Path(sys.argv[2]).read_text())
    components = components_of(settings)
    {"plan": plan, "render": render, "fused": fused}[sys.argv[1]](settings, components)
    components.close()


if __name__ == "__main__":
    main()

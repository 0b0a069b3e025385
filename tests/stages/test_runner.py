"""The five iterators: lazy, in order, every request out once, errors as failures of their episode."""

from __future__ import annotations

import dataclasses
import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nimbusd.stages import (
    AssetError,
    BackendUnavailable,
    BasePlanner,
    BaseRandomizer,
    ComponentArgs,
    Episode,
    EpisodeRequest,
    Observation,
    Piece,
    Scene,
    SceneConfig,
    Sequence,
)
from nimbusd.stages.errors import NimbusError, out_of_groups
from nimbusd.stages.runner import Components, StoreIterator, run_stages
from tests.support import toy


def components(**other: Any) -> Components:
    made = Components(
        toy.ToyLoader(ComponentArgs()),
        None,
        toy.ToyPlanner(toy.ToyPlannerArgs()),
        toy.ToyRenderer(ComponentArgs()),
        toy.ToyWriter(ComponentArgs()),
    )
    return dataclasses.replace(made, **other)


def chain(made: Components, requests: Any, tmp_path: Path, **more: Any) -> StoreIterator:
    return run_stages(
        made,
        requests,
        job_seed=1,
        scene_config=lambda name: SceneConfig(name=name),
        output=tmp_path,
        context={"job": {"name": "j"}},
        **more,
    )


def request(index: int, scene: str = "a") -> EpisodeRequest:
    return EpisodeRequest("j", scene, index)


@pytest.mark.parametrize("writers", [0, 1, 3])
def test_every_request_comes_out_once_with_its_piece(tmp_path: Path, writers: int) -> None:
    episodes = list(chain(components(), [request(i) for i in range(5)], tmp_path, writers=writers))
    assert [episode.request.index for episode in episodes] == list(range(5))
    assert all(episode.piece is not None and episode.observation is None for episode in episodes)
    assert set(episodes[0].timings_s) == {"load", "randomize", "plan", "render", "store"}


def test_nothing_is_pulled_before_it_is_asked_for(tmp_path: Path) -> None:
    pulled = []

    def requests() -> Iterator[EpisodeRequest]:
        for index in range(5):
            pulled.append(index)
            yield request(index)

    episodes = chain(components(), requests(), tmp_path, writers=0)
    assert pulled == []
    next(episodes)
    assert pulled == [0]


def test_a_scene_is_loaded_once_while_requests_stay_with_it(tmp_path: Path) -> None:
    loads = []

    class Counting(toy.ToyLoader):
        def load_asset(self, config: SceneConfig) -> Scene:
            loads.append(config.name)
            return super().load_asset(config)

    requests = [request(0), request(1), request(0, "b"), request(1, "b"), request(2)]
    list(chain(components(loader=Counting(ComponentArgs())), requests, tmp_path))
    assert loads == ["a", "b", "a"]


def test_an_episode_is_the_same_alone_or_after_others(tmp_path: Path) -> None:
    def states(requests: list[EpisodeRequest]) -> np.ndarray[Any, Any]:
        last = list(chain(components(), requests, tmp_path))[-1]
        assert last.sequence is not None
        return last.sequence.states["observation.state"].values

    np.testing.assert_array_equal(states([request(4)]), states([request(0), request(2), request(4)]))


def test_variants_of_a_scene_depend_on_the_variant_alone(tmp_path: Path) -> None:
    made = components(randomizer=toy.ToyRandomizer(ComponentArgs()))
    requests = [EpisodeRequest("j", "a", i, variant=i // 2) for i in range(4)]
    hashes = [e.scene.content_hash for e in chain(made, requests, tmp_path) if e.scene]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]


class WrongPlanner(BasePlanner[ComponentArgs]):
    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        return {"not": "a sequence"}  # type: ignore[return-value]


class WrongRandomizer(BaseRandomizer[ComponentArgs]):
    def randomize(self, scene: Scene, rng: np.random.Generator) -> Scene:
        return None  # type: ignore[return-value]


def test_a_wrong_return_type_fails_with_the_components_name(tmp_path: Path) -> None:
    (episode,) = chain(components(planner=WrongPlanner(ComponentArgs())), [request(0)], tmp_path)
    assert episode.failure is not None
    assert "WrongPlanner.gen_sequence returned dict, but must return Sequence" in episode.failure.detail
    (episode,) = chain(components(randomizer=WrongRandomizer(ComponentArgs())), [request(0)], tmp_path)
    assert episode.failure is not None
    assert "WrongRandomizer.randomize returned NoneType" in episode.failure.detail


def test_failed_plans_are_results_and_never_reach_the_renderer(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    made = components(planner=toy.ToyPlanner(toy.ToyPlannerArgs(fail_share=1.0)))
    (episode,) = chain(made, [request(0)], tmp_path, seen=lambda stage, e: seen.append((stage, e.request.index)))
    assert episode.failure is not None
    assert episode.failure.planned
    assert episode.failure.reason == "unreachable"
    assert [stage for stage, _ in seen] == ["load", "randomize", "plan"]


class BrokenLoader(toy.ToyLoader):
    def load_asset(self, config: SceneConfig) -> Scene:
        raise AssetError(f"scene {config.name!r}: mesh file a.glb is missing")


class FullWriter(toy.ToyWriter):
    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x")


class ReadOnlyWriter(toy.ToyWriter):
    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        raise OSError(errno.EROFS, "Read-only file system", "/data/x")


class BuggyRenderer(toy.ToyRenderer):
    def gen_obs(self, seq: Sequence) -> Observation:
        raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize(
    ("other", "stage", "reason"),
    [
        ({"loader": BrokenLoader(ComponentArgs())}, "load", "asset_error"),
        ({"writer": FullWriter(ComponentArgs())}, "store", "disk_full"),
        ({"writer": ReadOnlyWriter(ComponentArgs())}, "store", "storage_error"),
        ({"renderer": BuggyRenderer(ComponentArgs())}, "render", "zero_division_error"),
    ],
)
def test_an_error_fails_its_episode_with_stage_reason_and_traceback(
    tmp_path: Path, other: dict[str, Any], stage: str, reason: str
) -> None:
    episodes = list(chain(components(**other), [request(0), request(1)], tmp_path))
    assert len(episodes) == 2
    for episode in episodes:
        assert episode.failure is not None
        assert (episode.failure.stage, episode.failure.reason) == (stage, reason)
        assert "Traceback" in episode.failure.evidence
        assert not episode.failure.planned


class NoBackend(toy.ToyRenderer):
    def load(self, scene: Scene) -> None:
        raise BackendUnavailable("no GPU here")


def test_an_unavailable_backend_stops_the_runner(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable):
        list(chain(components(renderer=NoBackend(ComponentArgs())), [request(0)], tmp_path))


def test_a_module_that_a_component_lacks_stops_the_runner_with_the_extra_that_brings_it(tmp_path: Path) -> None:
    class Lacking(toy.ToyRenderer):
        def gen_obs(self, seq: Sequence) -> Observation:
            raise ModuleNotFoundError("No module named 'mujoco'", name="mujoco.viewer")

    sentence = r"^render: .*'mujoco' is not installed here: pip install 'nimbusd\[mujoco\]'"
    with pytest.raises(BackendUnavailable, match=sentence):
        list(chain(components(renderer=Lacking(ComponentArgs())), [request(0)], tmp_path))


def test_storing_overlaps_the_next_render_and_is_reported_when_durable(tmp_path: Path) -> None:
    second_render = threading.Event()
    stored: list[int] = []

    class SlowWriter(toy.ToyWriter):
        def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
            # The first piece can only be stored once the second episode is being rendered.
            assert second_render.wait(timeout=30)
            return super().save_data(seq, obs, episode)

    def seen(stage: str, episode: Episode) -> None:
        if stage == "render" and episode.request.index == 1:
            second_render.set()

    def report(episode: Episode) -> None:
        stored.append(episode.request.index)

    made = components(writer=SlowWriter(ComponentArgs()))
    episodes = list(chain(made, [request(0), request(1)], tmp_path, writers=1, seen=seen, stored=report))
    assert stored == [0, 1]
    assert all(episode.failure is None for episode in episodes)


@pytest.mark.parametrize("depth", [1, 3])
def test_an_error_in_a_group_of_groups_is_raised_by_itself_and_strangers_are_not_hidden(depth: int) -> None:
    def raise_grouped(error: Exception) -> None:
        for _ in range(depth):
            error = ExceptionGroup("tasks", [error])
        raise error

    with pytest.raises(AssetError, match="gone"), out_of_groups(NimbusError):
        raise_grouped(AssetError("gone"))
    with pytest.raises(ExceptionGroup), out_of_groups(NimbusError):
        raise_grouped(KeyError("strange"))
    with pytest.raises(AssetError), out_of_groups(NimbusError):
        raise AssetError("alone")

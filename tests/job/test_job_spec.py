"""A master takes the jobs that `nimbusctl check` lets through, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbusd.job import Job, JobError, read_job
from nimbusd.stages.errors import NimbusError
from tests.job.test_job_file import JOB

SPEC: dict[str, Any] = {
    "name": "toy",
    "seed": 5,
    "output": "/data/toy",
    "scenes_root": "/data",
    "scenes": [["flat", {"name": "flat", "path": "flat.glb"}], ["house", {"name": "house", "seed": 40}]],
    "episodes_per_scene": 2,
    "exact": True,
    "max_tries_per_episode": 5,
    "randomize_every": 0,
    "workers": None,
    "stages": {
        kind: {"component": "nobody.here:Nothing", "version": "1.0.0", "args": {"fps": 5}}
        for kind in ("load", "plan", "render", "store")
    },
    "limits": {"beat_timeout_s": 120.0, "attempts": 3},
}
THEN = {
    "load": "ToyLoader",
    "randomize": "ToyRandomizer",
    "plan": "ToyPlanner",
    "render": "ToyRenderer",
    "store": "ToyWriter",
}
FINGERPRINT = "29aeea468c43ae779705c342c8ab72daa393742850d8b40175900648539dacad"


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def changed(**changes: Any) -> dict[str, Any]:
    """SPEC with other values; keys of several levels are joined by `__`."""
    spec = copy.deepcopy(SPEC)
    for path, value in changes.items():
        *around, last = path.split("__")
        target = spec
        for key in around:
            target = target[key]
        target[last] = value
    return spec


def test_a_job_is_taken_without_its_components_being_imported() -> None:
    assert Job.from_dict(SPEC).to_dict() == Job.from_dict(orjson.loads(orjson.dumps(SPEC))).to_dict()


def test_a_job_of_an_earlier_release_has_the_fingerprint_that_it_had(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    spec = read_job(tmp_path / "job.yaml").to_dict()
    for kind, stage in spec["stages"].items():  # the components had other names
        stage["component"] = f"tests.toy_components:{THEN[kind]}"
    assert Job.from_dict(spec).fingerprint() == FINGERPRINT


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"episodes_per_scene": "3"}, "episodes_per_scene: must be a whole number, but it is '3'"),
        ({"episodes_per_scene": True}, "episodes_per_scene: must be a whole number, but it is true"),
        ({"episodes_per_scene": 2.0}, "episodes_per_scene: must be a whole number, but it is 2.0"),
        ({"episodes_per_scene": 1 << 31}, "episodes_per_scene: must be 2147483647 or less"),
        (
            {"episodes_per_scene": 1 << 30},
            "episodes_per_scene times max_tries_per_episode must be 2,147,483,647",
        ),
        ({"exact": "yes"}, "exact: must be true or false, but it is 'yes'"),
        ({"seed": 1 << 64}, "seed: is a number of more than 64 bits"),
        ({"seed": -1}, "seed: must be 0 or more"),
        ({"seed": 1.5}, "seed: must be a whole number"),
        ({"name": "a/b"}, "name 'a/b' may only have letters"),
        ({"name": ".."}, "name '..' may only have letters"),
        ({"name": "toy\n"}, "name 'toy\\n' may only have letters"),
        ({"name": "x" * 101}, "name: must have 100 characters or less"),
        ({"name": "a\0"}, "name: has characters that no file or message can hold"),
        ({"name": "\ud800"}, "name: has characters that no file or message can hold"),
        ({"name": None}, "name: must be text (put it in quotes), but it is empty"),
        ({"output": "out"}, "the path 'out' must be absolute"),
        ({"output": "/a\x1b[2J"}, "the path '/a\\x1b[2J' has control characters"),
        ({"output": "/" + "x" * 256}, "is too long for a file system"),
        ({"output": "/x" * 2000}, "is too long for a file system"),
        ({"scenes": [["a" * 256, {"name": "a" * 256}]]}, "has 256 bytes; a name has at most 200"),
        ({"scenes": [["é" * 101, {"name": "é" * 101}]]}, "has 202 bytes; a name has at most 200"),
        ({"scenes": [["../a", {"name": "../a"}]]}, "scene name '../a' may only have letters"),
        ({"scenes": [["a\u202eb", {"name": "a\u202eb"}]]}, "scene name 'a\\u202eb' may only have letters"),
        ({"scenes": [["a", {"name": "b"}]]}, "the entry of scene 'a' is called 'b'"),
        ({"scenes": [["a", {}]]}, "the entry of scene 'a' is called None"),
        ({"scenes": [["a", {"name": "a"}]] * 2}, "scene 'a' is there twice"),
        ({"scenes": [["a", {"name": "a", "x": nested(30)}]]}, "is nested more than 24 levels deep"),
        ({"scenes": [["a", {"name": "a", "x": b"bytes"}]]}, "must be text, a number, true, false, null, a list"),
        ({"scenes": [["a", {"name": "a", 3: 4}]]}, "has the key 3, which is not text"),
        ({"scenes": {"a": {}}}, "scenes: must be a list"),
        ({"scenes": [["a"]]}, "key '1' is missing"),
        ({"stages": {}}, "key 'load' is missing"),
        ({"stages__paint": SPEC["stages"]["plan"]}, "unknown key 'paint'"),
        ({"stages__plan__component": "a\x1b]0;x\x07"}, "has control characters"),
        ({"stages__plan__args": {"fps": float("nan")}}, "stages.plan.args.fps: must be a finite number"),
        ({"stages__plan__args": {"n": 1 << 70}}, "stages.plan.args.n: is a number of more than 64 bits"),
        ({"limits": {"beat_timeout_s": float("inf")}}, "limits.beat_timeout_s: must be a finite number"),
        ({"limits": {"beat_timeout_s": 1e300}}, "limits.beat_timeout_s: must be 10000000 or less"),
        ({"limits": {"beat_timeout_s": True}}, "limits.beat_timeout_s: must be a number, but it is true"),
        ({"mode": "quick"}, "mode: must be 'auto', 'fused' or 'decoupled', but it is 'quick'"),
        ({"workers": 1 << 40}, "workers: must be 4096 or less"),
        ({"fingerprint": "0" * 64}, "a job with scenes has no fingerprint beside them"),
        ({"whole": "x"}, "unknown key 'whole'"),
    ],
)
def test_what_no_job_file_can_say_is_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(NimbusError) as caught:
        Job.from_dict(changed(**changes))
    assert sentence in str(caught.value)
    assert "nput should" not in str(caught.value)


def test_a_sentence_about_a_million_mistakes_is_short() -> None:
    scenes = [["a b", {"name": "a b"}] for _ in range(5000)]
    with pytest.raises(NimbusError, match="and 4980 more") as caught:
        Job.from_dict(changed(scenes=scenes))
    assert len(str(caught.value)) < 10_000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
PLACES: list[Callable[[dict[str, Any], Any], None]] = [
    *[lambda spec, value, key=key: spec.update({key: value}) for key in (*SPEC, "mode", "planners", "fingerprint")],
    lambda spec, value: spec["stages"].update(plan=value),
    lambda spec, value: spec["stages"]["plan"].update(args=value),
    lambda spec, value: spec["stages"]["load"].update(component=value),
    lambda spec, value: spec["limits"].update(beat_timeout_s=value),
    lambda spec, value: spec["scenes"].append(value),
    lambda spec, value: spec["scenes"].append([value, {"name": value}]),
    lambda spec, value: spec["scenes"][0][1].update(path=value),
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), VALUES)
def test_whatever_a_client_sends_is_a_job_that_can_be_kept_and_sent_or_is_refused(
    put: Callable[[dict[str, Any], Any], None], value: Any
) -> None:
    spec = copy.deepcopy(SPEC)
    put(spec, value)
    try:
        job = Job.from_dict(spec)
    except NimbusError:
        return
    kept = orjson.loads(orjson.dumps(job.to_dict()))
    assert Job.from_dict(kept).fingerprint() == job.fingerprint()
    assert job.total_episodes * job.max_tries_per_episode < 1 << 53


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (f"seed={1 << 64}", "seed: is a number of more than 64 bits"),
        ("seed=yes", "seed: must be a whole number, but it is true"),
        ("seed='5'", "seed: must be a whole number, but it is '5'"),
        ("pipeline.plan.args.fps=yes", "fps: must be a number, but it is true"),
        ("pipeline.plan.args.fps=.nan", "pipeline.plan.args.fps: must be a finite number"),
        ("name=yes", "name: must be text (put it in quotes), but it is true"),
        ("scenes.0.name=" + "a" * 201, "has 201 bytes; a name has at most 200"),
        ("scenes.1.seed=18446744073709551614", "seed: is a number of more than 64 bits"),
        ('output="/tmp/\\e[2J"', "has control characters"),
        ("limits.attempts=1e3", "limits.attempts: must be a whole number, but it is 1000.0"),
    ],
)
def test_check_refuses_what_a_master_would(tmp_path: Path, override: str, sentence: str) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    with pytest.raises(JobError) as caught:
        read_job(tmp_path / "job.yaml", overrides=[override])
    assert sentence in str(caught.value)


def test_an_output_that_no_node_could_open_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    with pytest.raises(JobError) as caught:
        read_job(tmp_path / "job.yaml", output=Path("/tmp/a\nb"))
    assert [problem.text for problem in caught.value.problems] == [
        "output: the path '/tmp/a\\nb' has control characters, or bytes that are not UTF-8"
    ]

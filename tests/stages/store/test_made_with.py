"""`meta/environment.json`: which episodes of a dataset were made with which versions of which packages."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.cli.publish import verify
from nimbusd.cli.show import show
from nimbusd.job import read_job
from nimbusd.node.environment import environment_for
from nimbusd.show.made_with import made_with_lines
from nimbusd.stages import Piece, StoreError
from nimbusd.stages.store.made_with import (
    ENVIRONMENT,
    MadeWith,
    environment_json,
    environments_from_json,
    environments_of,
    joined,
    packages_hash,
    ranges,
)
from nimbusd.stages.store.publish import EPISODES_METADATA, Tree
from nimbusd.stages.store.read import open_dataset
from nimbusd.stages.store.verify.verify import verify_dataset
from tests.support.finished_outputs import finished
from tests.support.store_makers import JOB, make_writer, store_episode

OLD = {"python": "3.11.7", "numpy": "1.26.4"}
NEW = {"python": "3.11.7", "numpy": "2.0.0"}


def told(packages: dict[str, str], **more: Any) -> dict[str, Any]:
    """The environment that a node tells its workers to record."""
    return {"hash": packages_hash(packages), "packages": packages, **more}


def upgraded(output: Path, **args: Any) -> tuple[Any, list[Piece]]:
    """Five episodes of two scenes; numpy was upgraded after the second, and rolled back before the last."""
    change = {"before": {"numpy": "1.26.4"}, "now": {"numpy": "2.0.0"}}
    environments = [told(OLD), told(OLD), told(NEW, **change), told(NEW, **change), told(OLD)]
    writer = make_writer(codec="h264", **args)
    pieces = [
        store_episode(writer, output, index, scene=f"room_{index // 3}", environment=environment)
        for index, environment in enumerate(environments)
    ]
    return writer, pieces


@pytest.mark.parametrize("layout", ["lerobot-v3.0", "lerobot-v2.1", "interndata-n1"])
def test_a_dataset_says_which_episodes_were_made_with_which_packages(tmp_path: Path, layout: str) -> None:
    writer, pieces = upgraded(tmp_path, format=layout)
    dataset = open_dataset(writer.publish(tmp_path, pieces, JOB, True))
    assert dataset.environments == [
        MadeWith(packages_hash(OLD), OLD, ((0, 1), (4, 4))),
        MadeWith(packages_hash(NEW), NEW, ((2, 3),)),
    ]
    assert verify_dataset(tmp_path, pieces) == []
    changed = dict(dataset.meta(2)["run"]["environment"])
    assert changed == {"hash": packages_hash(NEW), "before": {"numpy": "1.26.4"}, "now": {"numpy": "2.0.0"}}
    assert dataset.meta(0)["run"]["environment"] == {"hash": packages_hash(OLD)}


def test_episodes_of_before_that_was_recorded_are_said_to_be_unknown(tmp_path: Path) -> None:
    writer = make_writer(codec="h264")
    before = {"hash": packages_hash(NEW), "before": {"numpy": "1.26.4"}, "now": {"numpy": "2.0.0"}}
    environments = [None, before, told(NEW)]
    pieces = [store_episode(writer, tmp_path, i, environment=said) for i, said in enumerate(environments)]
    dataset = open_dataset(writer.publish(tmp_path, pieces, JOB, True))
    assert dataset.environments == [MadeWith("", {}, ((0, 0),)), MadeWith(packages_hash(NEW), NEW, ((1, 2),))]
    assert verify_dataset(tmp_path, pieces) == []


def test_a_dataset_of_before_that_was_written_has_no_environments_and_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Tree.write
    monkeypatch.setattr(
        Tree, "write", lambda tree, path, content: None if path == ENVIRONMENT else write(tree, path, content)
    )
    writer, pieces = upgraded(tmp_path)
    writer.publish(tmp_path, pieces, JOB, True)
    assert open_dataset(tmp_path).environments == []
    assert verify_dataset(tmp_path, pieces) == []


@pytest.mark.parametrize(
    ("path", "old", "new", "words"),
    [
        (ENVIRONMENT, "2.0.0", "2.0.1", "are not those that this hash is of"),
        (ENVIRONMENT, "[[2,3]]", "[[2,2]]", "episode 3 is in no environment"),
        (ENVIRONMENT, "[[2,3]]", "[[1,3]]", "episode 1 is in two environments"),
        (ENVIRONMENT, "[[2,3]]", "[[2,9]]", "names episodes 2 to 9 of 5"),
        (ENVIRONMENT, '"hash"', '"hush"', "is not a table of environments"),
        (EPISODES_METADATA, packages_hash(NEW), packages_hash(OLD), "its metadata say"),
    ],
)
def test_an_environment_that_contradicts_the_episodes_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, old: str, new: str, words: str
) -> None:
    """Checksums are right here: the writer itself is made to lie."""
    write = Tree.write

    def lie(tree: Tree, name: str, content: bytes) -> None:
        if name == path:
            lines = [orjson.dumps(orjson.loads(line)) for line in content.splitlines()] if "jsonl" in path else None
            text = b"\n".join(lines) if lines else orjson.dumps(orjson.loads(content))
            assert old.encode() in text
            content = text.replace(old.encode(), new.encode())
        write(tree, name, content)

    writer, pieces = upgraded(tmp_path)
    monkeypatch.setattr(Tree, "write", lie)
    writer.publish(tmp_path, pieces, JOB, True)
    assert [fault for fault in verify_dataset(tmp_path, pieces) if words in fault]


def test_it_is_told_in_words_with_what_differs_from_the_first() -> None:
    first, other = MadeWith("a", {**OLD, "nimbusd": "1"}, ((0, 1), (4, 4))), MadeWith("b", NEW, ((2, 3),))
    assert made_with_lines([first]) == ["made with nimbusd 1, python 3.11.7, numpy 1.26.4"]
    assert made_with_lines([MadeWith("", {}, ((5, 5),)), first, other]) == [
        "episode 5 made with packages that were not recorded",
        "episodes 0 to 1, 4 made with nimbusd 1, python 3.11.7, numpy 1.26.4",
        "episodes 2 to 3 made with nimbusd 1 → none, numpy 1.26.4 → 2.0.0",
    ]
    assert made_with_lines([]) == []


def test_a_job_that_ran_has_its_packages_in_its_dataset_and_verify_and_show_tell_them(tmp_path: Path) -> None:
    output = finished(tmp_path)
    (one,) = open_dataset(output).environments
    expected = environment_for(read_job(tmp_path / "job.yaml"))
    assert (dict(one.packages), one.episodes, one.hash) == (expected.packages, ((0, 1),), expected.hash)
    done = CliRunner().invoke(verify, [str(output)])
    assert (done.exit_code, done.output.splitlines()[1:]) == (0, made_with_lines([one])), done.output
    told = orjson.loads(CliRunner().invoke(verify, [str(output), "--json"]).output)
    assert told["environments"] == [{"hash": one.hash, "packages": expected.packages, "episodes": [[0, 1]]}]
    shown = orjson.loads(CliRunner().invoke(show, [str(output), "--episodes", "0", "--json"]).output)
    assert shown["made_with"] == made_with_lines([one])


def test_a_piece_whose_packages_are_not_those_of_its_hash_is_refused(tmp_path: Path) -> None:
    lying = {"hash": packages_hash(OLD), "packages": NEW}
    with pytest.raises(StoreError, match=r"run.environment: .*its hash is not that of its packages"):
        store_episode(make_writer(codec="h264"), tmp_path, 0, environment=lying)


@given(st.lists(st.sampled_from(["", "1", "2"]), min_size=1, max_size=30), st.integers(0, 30))
def test_environments_name_every_episode_once_however_a_dataset_is_divided_into_trees(
    versions: list[str], cut: int
) -> None:
    runs = [{"environment": told({"numpy": version})} if version else {} for version in versions]
    whole = environments_of(runs)
    by_episode = {
        episode: one.packages.get("numpy", "")
        for one in whole
        for first, last in one.episodes
        for episode in range(first, last + 1)
    }
    assert [by_episode[episode] for episode in range(len(versions))] == versions
    parts = [part for part in (runs[:cut], runs[cut:]) if part]
    assert joined([(len(part), environments_of(part)) for part in parts]) == whole
    assert environments_from_json(orjson.dumps(environment_json(whole)), "it") == whole


@given(st.sets(st.integers(0, 40)))
def test_ranges_hold_just_the_numbers_and_never_touch(numbers: set[int]) -> None:
    made = ranges(sorted(numbers))
    assert {number for first, last in made for number in range(first, last + 1)} == numbers
    assert all(before[1] + 1 < after[0] for before, after in pairwise(made))

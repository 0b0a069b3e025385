"""docs/extend/format.md makes a format: its code is written, published, opened, checked and shown as the page says."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from nimbusd.cli.show import show
from nimbusd.stages import ComponentError, Piece, StoreError
from nimbusd.stages.arguments import ArgumentsError
from nimbusd.stages.registry import create
from nimbusd.stages.store import open_dataset, verify_dataset
from nimbusd.stages.store.formats import FORMATS, format_named, format_names, table
from nimbusd.stages.store.piece import PIECES
from nimbusd.stages.store.record import RECORD, is_ours, parse_record
from tests.support.store_makers import JOB, make_episode, make_observation, make_sequence

PAGE = (Path(__file__).parents[2] / "docs/extend/format.md").read_text()
BLOCKS = re.findall(r"```(python|toml|yaml)\n(.*?)```", PAGE, re.DOTALL)
MODULES = ("json_frames", "small_frames")


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The page's modules and entry point, as a package that is installed."""
    folder = tmp_path_factory.mktemp("site")
    for name, code in zip(MODULES, blocks("python"), strict=False):
        (folder / f"{name}.py").write_text(code)
    (group,) = re.findall(r'^\[project\.entry-points\."(.+)"\]$', blocks("toml")[0], re.MULTILINE)
    line = blocks("toml")[0].splitlines()[1].replace('"', "")
    (folder / "json_frames-1.0.dist-info").mkdir()
    (folder / "json_frames-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: json-frames\nVersion: 1.0\n"
    )
    (folder / "json_frames-1.0.dist-info/entry_points.txt").write_text(f"[{group}]\n{line}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        _forget()
        yield
    _forget()
    for name in MODULES:
        sys.modules.pop(name, None)


def _forget() -> None:
    table.plugged_in.cache_clear()
    format_named.cache_clear()


def store(output: Path, lengths: tuple[int, ...] = (8, 9)) -> tuple[list[Piece], Any]:
    """Pieces of episodes of these lengths, and the page's writer."""
    spec = yaml.safe_load(blocks("yaml")[0])["store"]
    writer = create(spec["component"], "store", spec["args"])
    pieces = []
    for index, length in enumerate(lengths):
        seq = make_sequence(length, seed=index)
        episode = make_episode(output, index, seq=seq)
        pieces.append(writer.save_data(seq, make_observation(seq, seed=index), episode))
    return pieces, writer


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in ("nimbusd_episodes.jsonl", "checksums.json")  # they hold the run's times
    }


def test_what_is_stored_is_read_back_and_found_in_order(tmp_path: Path) -> None:
    pieces, writer = store(tmp_path)
    writer.publish(tmp_path, pieces, JOB, True)
    names: dict[str, Any] = {"output": tmp_path, "open_dataset": open_dataset, "verify_dataset": verify_dataset}
    exec(compile(blocks("python")[2], "format.md", "exec"), names)  # the page's own lines, with its own assertions
    dataset, seq = names["dataset"], make_sequence(8, seed=0)
    assert (dataset.episodes, dataset.frames, dataset.fps, dataset.cameras) == (2, 17, 10, ("front",))
    episode = dataset.episode(0)
    assert np.array_equal(episode.rgb["front"], make_observation(seq, seed=0).frames["front"].rgb)
    assert episode.states["observation.state"] == pytest.approx(seq.states["observation.state"].values)
    assert episode.states["action"].shape == (8, 2)
    assert episode.T_world_camera["front"] == pytest.approx(seq.T_world_camera["front"])
    assert episode.intrinsics["front"].tolist() == [80.5, 79.25, 49.5, 30.0]
    assert {label.category for label in episode.labels} == {"floor", "chair"}
    assert verify_dataset(tmp_path, pieces) == []


def test_the_same_pieces_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        pieces, writer = store(tmp_path / name)
        writer.publish(tmp_path / name, pieces, JOB, name == "one")
    one, other = (files((tmp_path / name / "dataset").resolve()) for name in ("one", "other"))
    assert one.keys() == other.keys()
    assert {path for path in one if one[path] != other[path]} == set()
    assert "episode_000001/front/000008.png" in one


def test_damage_is_found_by_the_formats_own_check_and_by_those_of_all(tmp_path: Path) -> None:
    pieces, writer = store(tmp_path)
    root = writer.publish(tmp_path, pieces, JOB, True).resolve()
    lines = root / "episode_000001/frames.jsonl"
    kept = lines.read_bytes().splitlines(keepends=True)[1:]
    lines.unlink()
    lines.write_bytes(b"".join(kept).replace(b'"action"', b'"other"'))
    faults = verify_dataset(root)
    assert any("episode_000001/frames.jsonl has" in fault for fault in faults)
    assert any(fault.endswith("episode 1: its lines are not the frames 0…8") for fault in faults)
    assert any(fault.endswith("episode 1: a frame has no 'action'") for fault in faults)


def test_its_records_are_checked_like_those_of_all_formats(tmp_path: Path) -> None:
    (piece, _), _ = store(tmp_path)
    content = (tmp_path / PIECES / piece.folder / RECORD).read_bytes()
    assert is_ours(content)
    with pytest.raises(StoreError, match="fps"):
        parse_record(content.replace(b'"fps":10', b'"fps":-1'), RECORD)


def test_a_torn_head_is_named(tmp_path: Path) -> None:
    pieces, writer = store(tmp_path)
    root = writer.publish(tmp_path, pieces, JOB, True).resolve()
    (root / "meta/json_frames.json").write_text("{")
    (fault,) = verify_dataset(root)
    assert "meta/json_frames.json cannot be read" in fault


def test_show_tells_of_it(tmp_path: Path) -> None:
    pieces, writer = store(tmp_path)
    writer.publish(tmp_path, pieces, JOB, True)
    shown = CliRunner().invoke(show, [str(tmp_path), "--episodes", "0"], catch_exceptions=False).output
    assert "format json-frames, 10 fps episodes 2" in " ".join(shown.split())


def test_a_writer_with_arguments_of_its_own_uses_the_format() -> None:
    made = create("small_frames:SmallFramesWriter", "store", {"every": 2})
    assert getattr(made, "format") is format_named("json-frames")  # noqa: B009 - a class of the page


def test_a_name_that_no_format_has_is_refused_with_the_nearest() -> None:
    assert format_names() == [*FORMATS, "json-frames"]
    with pytest.raises(ArgumentsError, match="no format is called 'json-frame'; did you mean 'json-frames'"):
        create("EnvWriter", "store", {"format": "json-frame"})
    with pytest.raises(ArgumentsError, match="needs the arguments of InternDataA1Args"):
        create("EnvWriter", "store", {"format": "interndata-a1-v3.0"})


def test_an_entry_point_that_is_no_format_is_refused(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import json_frames  # type: ignore[import-not-found]

    monkeypatch.setattr(json_frames, "JSON_FRAMES", object())
    format_named.cache_clear()
    with pytest.raises(ComponentError, match="not a DatasetFormat of that name"):
        format_named("json-frames")
    monkeypatch.undo()
    format_named.cache_clear()

"""Paths and records that others wrote: nothing outside a piece or a dataset is ever read, linked or written."""

from __future__ import annotations

import json
import os
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.chaos.lies import LIES
from nimbusd.stages import EpisodeRequest, StoreError
from nimbusd.stages.store.beneath import check_path, filled, link_beneath, open_beneath, read_beneath
from nimbusd.stages.store.piece import PIECES, piece_faults, read_piece
from nimbusd.stages.store.publish import Tree
from nimbusd.stages.store.read import open_dataset
from nimbusd.stages.store.record import RECORD, parse_record
from nimbusd.stages.store.verify.verify import verify_dataset
from tests.support.store_makers import make_writer, store_episodes

REQUEST = EpisodeRequest("job", "s", 0, attempt=1)
JOB: dict[str, Any] = {"name": "job"}
BAD_PATHS = [
    "", ".", "..", "/etc/passwd", "a/../b", "a//b", "./a", "a/", "files/../../x", "a\\b", "a\0b", "a\nb", "a\x1b[2J",
    "x" * 300, "a/" * 600 + "b",
]  # fmt: skip


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A private file beside the output."""
    (tmp_path / "out" / PIECES).mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path / "out"


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_is_not_plain_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        open_beneath(tmp_path, path)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600 + len(str(tmp_path))


@given(st.text(string.ascii_letters + "./\\-~\0\n é", max_size=12))
def test_a_path_that_is_taken_stays_beneath_its_folder(path: str) -> None:
    try:
        check_path(path, "here")
    except StoreError:
        return
    joined = os.path.normpath(os.path.join("/root", path))
    assert joined.startswith("/root/")
    assert joined == f"/root/{path}"


def test_links_pipes_and_folders_are_not_opened(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "real/file").write_bytes(b"content")
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(root / "real")
    os.mkfifo(root / "pipe")
    assert read_beneath(root, "real/file") == b"content"
    for path in ("link", "folder/file", "pipe", "real", "nothing"):
        with pytest.raises((OSError, StoreError)):
            open_beneath(root, path)
        with pytest.raises((OSError, StoreError)):
            link_beneath(root, path, tmp_path / "target")
        assert not (tmp_path / "target").exists()
    with pytest.raises(StoreError, match="at most 3"):
        read_beneath(root, "real/file", 3)
    link_beneath(root, "real/file", tmp_path / "target")
    assert (tmp_path / "target").stat().st_ino == (root / "real/file").stat().st_ino


@pytest.mark.parametrize("lie", ["climbing_path", "linked_file", "pipe", "no_file", "linked_folder"])
def test_a_piece_that_leads_elsewhere_is_a_fault_and_nothing_of_it_is_read(lie: str, outside: Path) -> None:
    told = LIES[lie](outside, REQUEST)
    try:
        faults = piece_faults(outside, read_piece(outside, told.folder), deep=True)
    except StoreError as error:
        faults = [str(error)]
    assert faults


@pytest.mark.parametrize("folder", ["../../etc", "..", "", "a/b", "a\0b"])
def test_a_piece_is_looked_for_among_the_pieces_only(folder: str, outside: Path) -> None:
    with pytest.raises(StoreError):
        read_piece(outside, folder)


def test_nothing_is_published_outside_of_the_dataset(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "tree")
    (tmp_path / "tree").mkdir()
    with pytest.raises(StoreError, match="beneath"):
        tree.write("videos/../../x.mp4", b"")
    assert not (tmp_path / "x.mp4").exists()


# --- records ---


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("record")
    (piece,) = store_episodes(make_writer(format="lerobot-v2.1", codec="h264"), folder, range(1))
    return (folder / PIECES / piece.folder / RECORD).read_bytes()


def changed(record: bytes, path: str, value: Any) -> bytes:
    """The record with the value at `path`, whose parts are joined by dots; ... for none."""
    found = json.loads(record)
    *folders, last = path.split("/")
    at = found
    for part in folders:
        at = at[part] if part != "*" else at[next(iter(at))]
    last = next(iter(at)) if last == "*" else last
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((key, ...) for key in ("format", "length", "fps", "features", "videos", "stats", "labels", "facts", "run")),
        *((key, None) for key in ("fps", "features", "facts")),
        ("fps", 0),
        ("fps", "30"),
        ("fps", 1e400),
        ("length", -1),
        ("length", 1.5),
        ("features/*/shape", [-1]),
        ("features/*/shape", []),
        ("features/*/dtype", "object"),
        ("stats/*", {}),
        ("stats/*/mean", [[1, 2], [3]]),
        ("stats/*/count", [0]),
        ("facts/task", 7),
        ("facts/scene/variant", "x"),
        ("facts/cameras", {"../../x": {}}),
        ("facts/result", {}),
        ("facts/notes", {"sub_tasks": [{"start": 0}]}),
        ("videos", {"a/b": {}}),
    ],
)
def test_a_record_that_publishing_could_not_use_is_refused_with_its_key(path: str, value: Any, record: bytes) -> None:
    parse_record(record, "episode.json")
    with pytest.raises(StoreError, match=r"episode\.json"):
        parse_record(changed(record, path, value), "episode.json")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3), lambda i: st.lists(i) | st.dictionaries(st.text(max_size=5), i)
    )
)
def test_no_record_raises_anything_but_a_store_error(value: Any) -> None:
    with pytest.raises(StoreError):
        parse_record(json.dumps(value).encode(), "episode.json")


def test_publishing_names_the_piece_whose_record_is_damaged(tmp_path: Path) -> None:
    writer = make_writer(format="lerobot-v2.1", codec="h264")
    pieces = store_episodes(writer, tmp_path, range(2))
    path = tmp_path / PIECES / pieces[1].folder / RECORD
    content = changed(path.read_bytes(), "fps", ...)
    path.write_bytes(content + b" " * (path.stat().st_size - len(content)))
    with pytest.raises(StoreError, match=f"{pieces[1].folder}.*fps"):
        writer.publish(tmp_path, pieces, JOB, False)


# --- datasets ---


@pytest.mark.parametrize(
    "template",
    ["../../secret", "/etc/passwd", "{episode_index.__class__}", "{episode_index:9999999999d}", "{nobody}", "a//b"],
)
def test_a_template_of_a_dataset_leads_to_its_own_files_only(template: str, tmp_path: Path) -> None:
    assert filled("a/{x:03d}/{y}.mp4", "here", x=7, y="b") == "a/007/b.mp4"
    with pytest.raises(StoreError):
        filled(template, "here", episode_index=1)


def test_a_dataset_whose_files_are_links_is_not_read_and_does_not_verify(tmp_path: Path) -> None:
    writer = make_writer(format="lerobot-v2.1", codec="h264")
    pieces = store_episodes(writer, tmp_path, range(1))
    root = writer.publish(tmp_path, pieces, JOB, True).resolve()
    data = next(root.glob("data/*/*.parquet"))
    data.rename(tmp_path / "elsewhere.parquet")
    data.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(StoreError):
        open_dataset(tmp_path).episode(0)
    assert any(data.name in fault for fault in verify_dataset(tmp_path, pieces))

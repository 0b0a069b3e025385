"""Pieces are whole or not there, whenever the process dies."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.stages import EpisodeRequest, Piece, StoreError
from nimbusd.stages.errors import OutputGone
from nimbusd.stages.store.piece import PIECES, PieceDraft, draft_piece, piece_faults, piece_folder, read_piece

REQUEST = EpisodeRequest("job", "kitchen_03", 4, attempt=2)
CONTENT = {"episode.json": b"{}", "videos/front.mp4": b"v" * 3000, "rgb/0.jpg": b"j", "rgb/1.jpg": b"k" * 70}
CALLS = ("open", "write", "fsync", "rename")


class Crash(BaseException):
    """The process dies: no cleanup may run after it, see `crash_at`."""


def write_piece(output: Path) -> Piece:
    draft = PieceDraft(output, piece_folder(REQUEST))
    draft.root.mkdir(parents=True, exist_ok=True)
    for path, content in CONTENT.items():
        draft.add(path, content)
    return draft.commit(2)


def count_calls(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> int:
    counter = CallLimit(10**6)
    counter.install(monkeypatch)
    act()
    monkeypatch.undo()
    return counter.calls


class CallLimit:
    """Lets `limit` system calls pass and dies at the next one; `tear` writes half of a dying write."""

    def __init__(self, limit: int, tear: bool = False) -> None:
        self.limit, self.tear, self.calls = limit, tear, 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in CALLS:
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls > self.limit:
                if self.tear and name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise Crash
            return real(*args, **kwargs)

        return call


def test_a_piece_is_whole_or_invisible_after_a_crash_at_any_system_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = count_calls(monkeypatch, lambda: write_piece(tmp_path / "whole"))
    whole = read_piece(tmp_path / "whole", piece_folder(REQUEST))
    for limit in range(total):
        output = tmp_path / str(limit)
        CallLimit(limit, tear=bool(limit % 2)).install(monkeypatch)
        with pytest.raises(Crash):
            write_piece(output)
        monkeypatch.undo()
        if (output / PIECES / whole.folder).exists():
            assert piece_faults(output, read_piece(output, whole.folder), deep=True) == []
        with draft_piece(output, REQUEST) as draft:  # the next try, in whatever was left
            for path, content in CONTENT.items():
                draft.add(path, content)
            assert draft.commit(2) == whole
        assert [entry.name for entry in (output / PIECES).iterdir()] == [whole.folder]
        assert piece_faults(output, whole, deep=True) == []


def test_everything_is_synced_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        events.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path.resolve()))
        real_fsync(descriptor)

    def rename(source: Any, target: Any) -> None:
        events.append("rename")
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    piece = write_piece(tmp_path)
    tmp = f"{PIECES}/{piece.folder}.tmp"
    before = events[: events.index("rename")]
    wanted = {f"{tmp}/{file.path}" for file in piece.files} | {tmp, f"{tmp}/videos", f"{tmp}/rgb"}
    assert set(before) == wanted
    assert events[-1] == PIECES


def test_a_draft_that_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    with draft_piece(tmp_path, REQUEST) as draft:
        draft.add("a", b"1")
    assert list((tmp_path / PIECES).iterdir()) == []


@pytest.mark.parametrize("path", ["episode.json", "videos/front.mp4"])
def test_a_file_of_a_draft_does_not_bring_back_an_output_that_was_moved_away(tmp_path: Path, path: str) -> None:
    output = tmp_path / "output"
    output.mkdir()
    with draft_piece(output, REQUEST) as draft:
        draft.add("first", b"1")
        output.rename(tmp_path / "elsewhere")
        with pytest.raises(OutputGone):
            draft.add(path, b"2")
        with pytest.raises(OutputGone):
            draft.commit(2)
        assert not output.exists()


def test_a_piece_of_the_same_attempt_is_kept_and_a_torn_one_replaced(tmp_path: Path) -> None:
    first = write_piece(tmp_path)
    inode = (tmp_path / PIECES / first.folder / "rgb/0.jpg").stat().st_ino
    with draft_piece(tmp_path, REQUEST) as draft:
        draft.add("other", b"content")
        assert draft.commit(9) == first
    assert (tmp_path / PIECES / first.folder / "rgb/0.jpg").stat().st_ino == inode
    (tmp_path / PIECES / first.folder / "rgb/0.jpg").write_bytes(b"X")
    with draft_piece(tmp_path, REQUEST) as draft:
        draft.add("other", b"content")
        assert [file.path for file in draft.commit(9).files] == ["manifest.json", "other"]


@pytest.mark.parametrize(("call", "number"), [("write", errno.ENOSPC), ("fsync", errno.EIO), ("open", errno.EROFS)])
def test_a_storage_error_names_its_errno_and_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=r"job__kitchen_03__000004\.2\.tmp") as caught:
        write_piece(tmp_path)
    assert caught.value.errno == number


@pytest.mark.parametrize("name", ["episode.json", "videos/front.mp4", "manifest.json"])
def test_every_bit_flip_in_a_piece_is_found(tmp_path: Path, name: str) -> None:
    piece = write_piece(tmp_path)
    path = tmp_path / PIECES / piece.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert piece_faults(tmp_path, piece, deep=True) == [
        f"piece {piece.folder}: the content of {name} differs from its SHA-256"
    ]
    path.unlink()
    assert "is missing" in piece_faults(tmp_path, piece, deep=False)[0]


def test_a_changed_manifest_is_not_believed(tmp_path: Path) -> None:
    piece = write_piece(tmp_path)
    manifest = tmp_path / PIECES / piece.folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    with pytest.raises(StoreError, match="was changed"):
        read_piece(tmp_path, piece.folder)
    manifest.unlink()
    with pytest.raises(StoreError, match="no readable manifest"):
        read_piece(tmp_path, piece.folder)


NAMES = st.text(st.sampled_from("ab_./%é "), min_size=1, max_size=6) | st.text("x_", min_size=85, max_size=95)


@given(NAMES, NAMES, NAMES, NAMES)
def test_different_episodes_have_different_valid_folder_names(job1: str, scene1: str, job2: str, scene2: str) -> None:
    one, two = (EpisodeRequest(job, scene, 1) for job, scene in ((job1, scene1), (job2, scene2)))
    assert (piece_folder(one) == piece_folder(two)) == ((job1, scene1) == (job2, scene2))
    assert "/" not in piece_folder(one)
    assert len(piece_folder(one).encode()) < 240

"""`verify_dataset` finds every damage that can be done to a dataset's files."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from nimbusd.stages import Piece
from nimbusd.stages.store.piece import PIECES
from nimbusd.stages.store.publish import Tree
from nimbusd.stages.store.verify.verify import verify_dataset
from tests.support.store_makers import JOB, make_writer, store_episodes

FORMATS = ["lerobot-v3.0", "lerobot-v2.1", "interndata-n1"]


@pytest.fixture(params=FORMATS)
def published(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[Piece]]:
    writer = make_writer(format=request.param, codec="h264")
    pieces = store_episodes(writer, tmp_path, range(2))
    writer.publish(tmp_path, pieces, JOB, True)
    return tmp_path, pieces


def copy_of(output: Path) -> Path:
    """The dataset alone, in files of its own."""
    target = output / "copy"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree((output / "dataset").resolve(), target)
    return target


def test_a_bit_flip_in_any_file_is_found(published: tuple[Path, list[Piece]]) -> None:
    output, _ = published
    root = copy_of(output)
    assert verify_dataset(root) == []
    rng = random.Random(1)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    chosen = [path for path in files if path.suffix not in (".jpg", ".png")]
    chosen += rng.sample([path for path in files if path.suffix in (".jpg", ".png")], min(4, len(files) - len(chosen)))
    for path in chosen:
        content = path.read_bytes()
        place = rng.randrange(len(content))
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        assert verify_dataset(root), f"{path} at byte {place}"
        path.write_bytes(content)
    assert verify_dataset(root) == []


def test_an_info_file_without_any_of_its_keys_is_a_fault(tmp_path: Path) -> None:
    writer = make_writer(codec="h264")
    root = writer.publish(tmp_path, store_episodes(writer, tmp_path, range(1)), JOB, True).resolve()
    path = root / "meta/info.json"
    content = orjson.loads(path.read_bytes())
    path.unlink()
    for key in content:
        path.write_bytes(orjson.dumps({name: value for name, value in content.items() if name != key}))
        assert verify_dataset(root), key
    no_shape = {"features": {"action": {"dtype": "float32"}}}
    lies: list[dict[str, Any]] = [{"fps": 0}, {"features": []}, no_shape, {"total_frames": None}]
    for wrong in lies:
        path.write_bytes(orjson.dumps(content | wrong))
        assert "info.json cannot be read" in verify_dataset(root)[0], wrong
    path.write_bytes(b"[]")
    assert "info.json cannot be read" in verify_dataset(root)[0]


def test_missing_truncated_and_foreign_files_are_found(published: tuple[Path, list[Piece]]) -> None:
    output, _ = published
    root = copy_of(output)
    info = next(root.rglob("info.json"))
    (info.parent / "stray.txt").write_text("?")
    assert any("stray.txt does not belong" in fault for fault in verify_dataset(root))
    (info.parent / "stray.txt").unlink()
    data = next(root.rglob("data/**/*.parquet"))
    data.write_bytes(data.read_bytes()[:-10])
    assert any("bytes instead of" in fault for fault in verify_dataset(root))
    data.unlink()
    assert any("is missing" in fault for fault in verify_dataset(root))


def test_a_flip_in_a_piece_is_found_with_the_committed_list(published: tuple[Path, list[Piece]]) -> None:
    output, pieces = published
    for file in (file for piece in pieces for file in piece.files if not file.path.endswith((".jpg", ".png"))):
        piece = next(piece for piece in pieces if file in piece.files)
        path = output / PIECES / piece.folder / file.path
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert any(file.path in fault for fault in verify_dataset(output, pieces))
        path.write_bytes(content)
    assert verify_dataset(output, pieces) == []


def test_a_dataset_with_other_episodes_than_committed_is_found(published: tuple[Path, list[Piece]]) -> None:
    output, pieces = published
    assert any("is not committed" in fault for fault in verify_dataset(output, pieces[:1]))
    more = [*pieces, Piece("job__room__000009.1", 8, ())]
    assert any("000009.1 is missing" in fault for fault in verify_dataset(output, more))


def test_a_folder_without_a_dataset_is_a_fault(tmp_path: Path) -> None:
    assert "holds no dataset" in verify_dataset(tmp_path)[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"total_frames": 99}, "frames, info.json says 99"),
        ({"splits": {"train": "0:1"}}, "do not cover"),
        ({"fps": 30}, "not frame_index / fps"),
    ],
)
def test_content_that_is_wrong_but_well_formed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    """Checksums are right here: the writer itself is made to lie."""
    write = Tree.write

    def lie(self: Tree, path: str, content: bytes) -> None:
        if path == "meta/info.json":
            content = orjson.dumps(orjson.loads(content) | change)
        write(self, path, content)

    writer = make_writer(codec="h264")
    pieces = store_episodes(writer, tmp_path, range(2))
    monkeypatch.setattr(Tree, "write", lie)
    writer.publish(tmp_path, pieces, JOB, True)
    assert any(words in fault for fault in verify_dataset(tmp_path, pieces))

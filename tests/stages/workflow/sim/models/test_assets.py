"""Fetching what other projects publish, with pip and a wheel of our own in place of theirs."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from nimbusd.stages.errors import AssetError
from nimbusd.stages.workflow.sim.models.assets import PACKAGES, Package, asset, fetch, fetched

ARM = "robots/panda/robot.xml"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A small wheel called robosuite, which is the only one that pip finds; the cache folder is empty."""
    entry = PACKAGES["robosuite"]
    about = f"{entry.folder}.dist-info"
    files = {
        f"{entry.root}{ARM}": "<mujoco/>",
        "robosuite/__init__.py": "raise SystemExit('nothing of it is installed')",
        entry.licences[0]: "MIT",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {entry.name}\nVersion: {entry.version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / f"{entry.folder}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    ours = replace(entry, sha256=hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setitem(PACKAGES, "robosuite", ours)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("NIMBUSD_ASSETS", str(tmp_path / "assets"))
    return ours


def test_two_that_fetch_at_once_both_find_the_assets_whole_and_leave_nothing_else(
    tmp_path: Path, published: Package
) -> None:
    both_have_begun = threading.Barrier(2, timeout=60)

    def say(text: str) -> None:
        both_have_begun.wait()

    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: fetch("robosuite", say), range(2)))
    assert folders == [tmp_path / "assets" / published.folder] * 2
    assert asset("robosuite", ARM).read_text() == "<mujoco/>"
    assert sorted(path.name for path in folders[0].iterdir()) == ["LICENSE", "robots"]
    assert [path.name for path in (tmp_path / "assets").iterdir()] == [published.folder]
    assert fetch("robosuite") == folders[0], "what is there is not fetched again"


def test_another_release_than_the_one_that_is_known_is_refused_and_nothing_is_left(
    tmp_path: Path, published: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGES, "robosuite", replace(published, sha256="0" * 64))
    with pytest.raises(AssetError, match="it is not that release"):
        fetch("robosuite")
    assert not fetched("robosuite")
    assert not list((tmp_path / "assets").iterdir())

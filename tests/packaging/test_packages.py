"""The packages work: the wheel and the sdist, each installed somewhere, and the sdist's own tests.

Needs no network: the build uses the setuptools that is installed here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.cluster import REPOSITORY

pytestmark = pytest.mark.processes

BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]  # setuptools has arguments of its own there, afterwards
build_meta.build_wheel(folder)
build_meta.build_sdist(folder)
"""
LINKED = ("renderers", "stages", "supervisor", "transport")
BESIDE = ("docs", "examples", "scripts", "systemd", "tests")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*_cache", "*.egg-info")
PATIENCE_S = 240.0


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command to its good end, without what makes this checkout importable. Returns its output."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


@pytest.fixture(scope="module")
def setuptools() -> str:
    """The folder that it is imported from."""
    package = pytest.importorskip("setuptools", minversion="77", reason="the build needs it, as the extra `dev` has it")
    return str(Path(package.__file__).parents[1])


@pytest.fixture(scope="module")
def packed(setuptools: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this checkout."""
    source, packed = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("packed")
    for path in REPOSITORY.iterdir():
        if path.is_file():
            shutil.copy(path, source / path.name)
        elif path.name in ("nimbusd", *LINKED, *BESIDE):
            shutil.copytree(path, source / path.name, symlinks=True, ignore=LEFT_OUT)
    run(sys.executable, "-c", BUILD, packed, cwd=source, PYTHONPATH=setuptools)
    return packed


@pytest.fixture(scope="module", params=["*.whl", "*.tar.gz"], ids=["wheel", "sdist"])
def installed(
    packed: Path, setuptools: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder into which one of them was installed."""
    target, package = tmp_path_factory.mktemp("site"), only(packed, request.param)
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install"]
    run(*pip, *options, "--target", target, package, cwd=target, PYTHONPATH=setuptools)
    return target


def test_what_is_installed_can_be_imported(installed: Path, tmp_path: Path) -> None:
    code = "import nimbusd.client as c, nimbusd.stages as s; s.Scene; print(c.__file__, s.__file__, sep='\\n')"
    places = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed)).split()
    assert places == [str(installed / "nimbusd/client.py"), str(installed / "nimbusd/stages/__init__.py")]


def test_the_wheel_holds_the_package_and_nothing_else(packed: Path) -> None:
    with zipfile.ZipFile(only(packed, "*.whl")) as wheel:
        names = wheel.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"nimbusd"}
    for inside in ("nimbusd", *(f"nimbusd/{package}" for package in LINKED)):
        modules = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / inside).rglob("*.py")}
        assert modules
        assert modules <= set(names)
    assert "nimbusd/py.typed" in names


def test_the_sdist_holds_all_that_its_tests_need(packed: Path, tmp_path: Path) -> None:
    with tarfile.open(only(packed, "*.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = only(tmp_path, "nimbusd-*")
    for folder in BESIDE:
        files = {path.relative_to(REPOSITORY) for path in (REPOSITORY / folder).rglob("*") if path.is_file()}
        missing = {path for path in files if "__pycache__" not in path.parts and not (unpacked / path).is_file()}
        assert not missing
    options = ["--collect-only", "-q", "-n0", "-p", "no:cacheprovider"]
    collected = run(sys.executable, "-m", "pytest", *options, cwd=unpacked, PYTHONPATH=str(unpacked))
    assert "tests/packaging/test_packages.py::" in collected

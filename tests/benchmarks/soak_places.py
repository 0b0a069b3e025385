"""Places on this machine that share nothing but the disk: each with a network, a /tmp and a /dev/shm of its own.

The program that has them is in a network namespace of its own, too, where a switch joins them: their addresses exist
nowhere else. `enter` needs root, or a kernel that lets users make namespaces.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_INSIDE = "NIMBUS_SOAK_INSIDE"
_NETWORK = "10.77.0"
_PRIVATE = (Path("/tmp"), Path("/dev/shm"))
_HOLD = (
    "mount --make-rprivate / && mount -t tmpfs tmpfs /tmp && mount -t tmpfs tmpfs /dev/shm && ip link set lo up"
    " && echo ready && exec cat"  # until whoever holds the other end of its input is gone
)


class NoPlaces(Exception):
    """They cannot be had here; the text is a sentence."""


def enter(module: str) -> None:
    """Begin this program, which is `module`, anew in namespaces of its own, unless it is there already.

    Raises NoPlaces.
    """
    if os.environ.get(_INSIDE):
        return
    unshare = ["unshare", "--net", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    try:
        subprocess.run([*unshare, "ip", "link", "set", "lo", "up"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise NoPlaces(
            f"network and mount namespaces cannot be made here ({why}): run this as root, with util-linux (unshare, "
            "nsenter) and iproute2 (ip) installed"
        ) from error
    argv = [*unshare, sys.executable, "-m", module, *sys.argv[1:]]
    os.execvpe(argv[0], argv, {**os.environ, _INSIDE: "1"})


def must_be_shared(path: Path) -> None:
    """Raise NoPlaces if each place has another folder there."""
    for private in _PRIVATE:
        if path.resolve().is_relative_to(private):
            raise NoPlaces(
                f"{path} would be another folder in each namespace: choose one that is not beneath {private}"
            )


@dataclass(frozen=True, slots=True)
class Place:
    """A place to put a process. address: its own. keeper: a process that keeps it there."""

    name: str
    address: str
    keeper: subprocess.Popen[str]

    def command(self, argv: Sequence[str]) -> list[str]:
        """`argv`, in that place; the process is the same one, with the same pid for all."""
        return ["nsenter", "--target", str(self.keeper.pid), "--net", "--mount", *argv]


class Places(AbstractContextManager["Places"], Mapping[str, Place]):
    """Places by name, joined by a switch."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._places: dict[str, Place] = {}

    def __getitem__(self, name: str) -> Place:
        return self._places[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __enter__(self) -> Self:
        _run("ip", "link", "add", "switch", "type", "bridge")
        _run("ip", "address", "add", f"{_NETWORK}.1/24", "dev", "switch")
        _run("ip", "link", "set", "switch", "up")
        for number, name in enumerate(self._names):
            self._places[name] = self._made(name, number)
        return self

    def _made(self, name: str, number: int) -> Place:
        argv = ["unshare", "--net", "--mount", "sh", "-c", _HOLD]
        keeper = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        place = Place(name, f"{_NETWORK}.{number + 2}", keeper)
        self._places[name] = place
        assert keeper.stdout is not None
        if keeper.stdout.readline() != "ready\n":
            raise NoPlaces(f"place {name} has no /tmp of its own: its mounts failed, as is told above")
        plug = f"plug{number}"
        _run("ip", "link", "add", plug, "type", "veth", "peer", "name", "eth0", "netns", str(keeper.pid))
        _run("ip", "link", "set", plug, "master", "switch", "up")
        _run(*place.command(["ip", "address", "add", f"{place.address}/24", "dev", "eth0"]))
        _run(*place.command(["ip", "link", "set", "eth0", "up"]))
        return place

    def __exit__(self, *exc: object) -> None:
        for place in self._places.values():
            assert place.keeper.stdin is not None
            place.keeper.stdin.close()
            place.keeper.wait()


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise NoPlaces(f"`{' '.join(argv)}` failed: {done.stderr.strip()}")

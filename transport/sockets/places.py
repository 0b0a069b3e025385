"""Places of the Unix socket of a master on this machine: where a master makes it, and where others look for it.

| who | folder |
|---|---|
| a service of systemd | `$RUNTIME_DIRECTORY`, which is `/run/nimbusd/master` in our unit |
| root | `/run/nimbusd/master` |
| anybody else | `$XDG_RUNTIME_DIR/nimbusd`; without that, or for a group, `/tmp/nimbusd-UID` |

A client looks in its user's folders first, then in that of the service.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nimbusd.transport.security.ownership import ROOT, open_to_others, user_name

SYSTEM_FOLDER = Path("/run/nimbusd/master")
NAME = "socket"


@dataclass(frozen=True, slots=True)
class SocketPlace:
    """A folder for a master's socket. ours: it is made and closed to others by us, not by a service manager."""

    folder: Path
    ours: bool = True

    @property
    def address(self) -> str:
        """Of the socket in there."""
        return f"ipc://{self.folder / NAME}"


def place_to_listen(environ: Mapping[str, str], uid: int, *, for_group: bool = False) -> SocketPlace:
    """The place at which a master of this user listens. for_group: others must be able to get there."""
    if runtime := environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        return SocketPlace(Path(runtime), ours=False)
    if uid == ROOT:
        return SocketPlace(SYSTEM_FOLDER)
    session = None if for_group else _session_folder(environ, uid)
    return SocketPlace(session or _temporary_folder(uid))


def find_socket(environ: Mapping[str, str], uid: int) -> str:
    """The address of the master on this machine: the first that listens; the first place to look in if none does."""
    places = _places_to_look(environ, uid)
    there = [place for place in places if _has_socket(place.folder)]
    if len(there) > 1:
        # Only then: each look costs a master a line in its log.
        there = [place for place in there if not why_unreachable(place.folder / NAME)] or there
    return (there or places)[0].address


def _has_socket(folder: Path) -> bool:
    """True where a socket can be seen; in the folder of another user's master there is none for us."""
    try:
        return (folder / NAME).is_socket()
    except PermissionError:
        return False


def why_unreachable(path: Path) -> str:
    """The reason why nobody can connect to the Unix socket at `path`, as a part of a sentence; empty: one can."""
    match error := knock(path):
        case None:
            return ""
        case FileNotFoundError():
            return "there is no such socket"
        case ConnectionRefusedError():
            return "the process that made this socket is gone"
        case PermissionError():
            return f"{user_name(os.geteuid())} may not use this socket: {_whose(path)}"
        case _:
            return os.strerror(error.errno or 0)


def knock(path: Path) -> OSError | None:
    """Connect to the Unix socket at `path`, and return the error; None: somebody listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except BlockingIOError:  # so many wait that there is no room for us
            return None
        except OSError as error:
            return error
    return None


def _places_to_look(environ: Mapping[str, str], uid: int) -> list[SocketPlace]:
    """A folder in which somebody else could have put a socket is not looked into."""
    own = [] if uid == ROOT else [_session_folder(environ, uid), _temporary_folder(uid)]
    places = [SocketPlace(folder) for folder in [*own, SYSTEM_FOLDER] if folder is not None]
    trusted = [place for place in places if place.folder == SYSTEM_FOLDER or not open_to_others(place.folder, uid)]
    return trusted or places[-1:]


def _session_folder(environ: Mapping[str, str], uid: int) -> Path | None:
    """After `su` or `sudo` the variable may still be another user's."""
    session = environ.get("XDG_RUNTIME_DIR", "")
    try:
        usable = bool(session) and os.stat(session).st_uid == uid
    except OSError:
        usable = False
    return Path(session) / "nimbusd" if usable else None


def _temporary_folder(uid: int) -> Path:
    """Not under TMPDIR: a master and its clients must come to the same place, whatever that is in each."""
    return Path("/tmp") / f"nimbusd-{uid}"


def _whose(path: Path) -> str:
    for place in (path, path.parent):
        try:
            found = os.stat(place)
        except OSError:
            continue
        return (
            f"{place} belongs to {user_name(found.st_uid)} and has mode {stat.S_IMODE(found.st_mode):04o}; a master "
            "that is started with --group NAME lets the members of that group in"
        )
    return f"{path.parent} cannot be entered; a master that is started with --group NAME lets its members in"

"""A Unix socket to listen on that belongs to one live process, and that only its user, root and a group may use.

Two things keep others out, each by itself: the kernel lets nobody connect who may not write to the socket's file, and
ZeroMQ asks it at each connection who is at the other end (SO_PEERCRED), and hangs up on strangers. So ZeroMQ is given
a socket that we have bound: it would have taken the path from a master that lives, and left the mode to the umask.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import logging
import os
import socket
import stat
from pathlib import Path

import zmq

from nimbusd.transport.errors import TransportError
from nimbusd.transport.security.ownership import ROOT, open_to_others, user_name
from nimbusd.transport.sockets.addresses import AddressError
from nimbusd.transport.sockets.places import SocketPlace, knock

log = logging.getLogger(__name__)

_BACKLOG = 4096


class LocalListener:
    """Holds the path of a socket while it lives. gid: of the group that may use it; None: the user and root alone."""

    def __init__(self, path: Path, gid: int | None = None) -> None:
        """Take the path; what a dead process left there is replaced.

        Raises TransportError if another process listens there, AddressError if something else is in its place, or if
        other users could put something there.
        """
        self.path = path
        self._gid = gid
        self._inode = 0
        if (why := open_to_others(path.parent, os.geteuid())) is not None:
            raise AddressError(
                f"others could put a socket of theirs in the place of ipc://{path} while no master runs: {why}. Choose "
                "a folder that only this user may write to"
            )
        self._lock = _lock(path)
        try:
            _remove_dead(path)
            self._socket: socket.socket | None = self._bound()
        except BaseException:
            os.close(self._lock)
            raise

    def listen(self, router: zmq.Socket[bytes]) -> None:
        """Have `router` take the connections. It has the socket from then on."""
        assert self._socket is not None
        for uid in {ROOT, os.geteuid()}:
            router.setsockopt(zmq.IPC_FILTER_UID, uid)
        if self._gid is not None:
            router.setsockopt(zmq.IPC_FILTER_GID, self._gid)
        router.setsockopt(zmq.USE_FD, self._socket.fileno())
        router.bind(f"ipc://{self.path}")
        router.setsockopt(zmq.USE_FD, -1)  # what else it binds is its own
        self._socket.detach()
        self._socket = None

    def close(self) -> None:
        """Give the path up. Call it after the router is closed."""
        if self._socket is not None:
            self._socket.close()
        try:
            if os.lstat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        except FileNotFoundError:
            pass  # somebody has removed it
        except OSError as error:
            log.warning("cannot remove %s: %s", self.path, error.strerror)
        os.close(self._lock)

    def _bound(self) -> socket.socket:
        mode = 0o600 if self._gid is None else 0o660
        listening = socket.socket(socket.AF_UNIX)
        try:
            os.fchmod(listening.fileno(), mode)  # the file gets this mode: there is no moment at which it is open
            listening.bind(os.fspath(self.path))
            self._inode = os.lstat(self.path).st_ino
            if self._gid is not None:
                give_to_group(self.path, self._gid)
            os.chmod(self.path, mode)  # a umask may have taken the group's part
            listening.listen(_BACKLOG)
            listening.setblocking(False)
        except OSError as error:
            listening.close()
            raise TransportError(f"cannot listen on ipc://{self.path}: {error.strerror}") from error
        except BaseException:
            listening.close()
            raise
        return listening


def group_id(name: str) -> int:
    """Of a group by its name. Raises AddressError."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise AddressError(f"there is no group {name!r} on this machine to give the socket to") from None


def make_folder(place: SocketPlace, gid: int | None = None) -> None:
    """Have the folder of a master's socket: ours is closed to all but its user and, to pass through, a group.

    Raises AddressError if another user could put something in its place.
    """
    folder = place.folder
    try:
        if place.ours:
            _make(folder)
        found = os.lstat(folder)
    except OSError as error:
        raise AddressError(f"cannot make {folder} for the socket: {error.strerror}. {_ELSEWHERE}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise AddressError(f"{folder} must be a folder, and is a link or a file. Remove it. {_ELSEWHERE}")
    if found.st_uid != os.geteuid():
        raise AddressError(
            f"{folder}, for the socket of this master, belongs to {user_name(found.st_uid)}: is it a service's? "
            f"{_ELSEWHERE}"
        )
    if (why := open_to_others(folder, os.geteuid())) is not None:
        raise AddressError(f"others could replace the socket of this master: {why}. {_ELSEWHERE}")
    if place.ours:
        if gid is not None:
            give_to_group(folder, gid)
        os.chmod(folder, 0o700 if gid is None else 0o710)


def give_to_group(path: Path, gid: int) -> None:
    """Raises AddressError if we may not."""
    try:
        os.chown(path, -1, gid)
    except PermissionError:
        raise AddressError(
            f"cannot give {path} to the group {grp.getgrgid(gid).gr_name}: {user_name(os.geteuid())} is no member of it"
        ) from None


_ELSEWHERE = "Or name another place by --bind ipc://PATH."


def _make(folder: Path) -> None:
    """And the one that it is in: passable for all, whatever the umask."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder.parent)
        os.chmod(folder.parent, 0o755)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)


def _lock(path: Path) -> int:
    """A descriptor that holds the lock of who listens at `path`."""
    place = path.with_name(f"{path.name}.lock")
    try:
        lock = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise TransportError(f"cannot listen on ipc://{path}: {error.strerror} ({place})") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise _taken(path) from None
    return lock


def _remove_dead(path: Path) -> None:
    """Remove a socket that nobody listens on any more."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise TransportError(f"cannot listen on ipc://{path}: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise AddressError(f"cannot listen on ipc://{path}: there is a file that is no socket. Move it away.")
    if not isinstance(knock(path), ConnectionRefusedError):
        raise _taken(path)
    log.info("replacing %s, which a dead process left", path)
    try:
        os.unlink(path)
    except OSError as error:
        raise TransportError(f"cannot replace {path}, which a dead process left: {error.strerror}") from error


def _taken(path: Path) -> TransportError:
    return TransportError(f"another master listens on ipc://{path}. Stop it, or name another address by --bind.")

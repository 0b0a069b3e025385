"""Rights to write, as far as owners and modes of files tell."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import stat
from pathlib import Path

ROOT = 0


def open_to_others(path: Path, uid: int) -> str | None:
    """The reason why others than root and `uid` can change `path`, as a part of a sentence; None: they cannot.

    Looks at all folders on the way there, and where links lead. What does not exist is nobody's to change.
    """
    for place in dict.fromkeys([*_way_to(Path(os.path.abspath(path))), *_way_to(Path(os.path.realpath(path)))]):
        try:
            found = place.stat()
        except OSError:
            continue  # it cannot be entered by us either
        last = place in (path, Path(os.path.realpath(path)))
        if (why := _objection(found, uid, within=not last)) is not None:
            named = os.path.realpath(place)
            return f"{named} belongs to {user_name(found.st_uid)} and has mode {stat.S_IMODE(found.st_mode):04o}{why}"
    return None


def user_name(uid: int) -> str:
    """The account's name, or its number where there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _way_to(path: Path) -> list[Path]:
    return [*reversed(path.parents), path]


def _objection(found: os.stat_result, uid: int, *, within: bool) -> str | None:
    """within: it is a folder on the way; a sticky one lets nobody touch what is another's in there."""
    if found.st_uid not in (ROOT, uid) and not _is_unmapped(found.st_uid):
        return ""
    if within and found.st_mode & stat.S_ISVTX:
        return None
    if found.st_mode & stat.S_IWOTH:
        return ""
    if found.st_mode & stat.S_IWGRP and (others := _others_in(found.st_gid, uid)):
        return f", and its group has other members ({others})"
    return None


@functools.lru_cache
def _others_in(gid: int, uid: int) -> str:
    """The members of a group beside root and `uid`."""
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        return "" if gid == ROOT else "unknown ones"
    members |= {user.pw_name for user in pwd.getpwall() if user.pw_gid == gid}
    return ", ".join(sorted(members - {user_name(ROOT), user_name(uid)}))


@functools.lru_cache
def _is_unmapped(uid: int) -> bool:
    """In a user namespace, files of all users outside seem to be of one: nobody can tell who could write."""
    overflow = int(Path("/proc/sys/kernel/overflowuid").read_text())
    everybody = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    return uid == overflow and not everybody

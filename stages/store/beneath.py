"""Files that others have named: found beneath a folder, or not at all.

Manifests, checksums and metadata name files, and whoever wrote them may have meant another place. So a path must be
plain, and on the way to the file no link is followed and nothing but a regular file is opened: a pipe would keep us
waiting for ever, a device may do anything.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from nimbusd.stages.errors import StoreError

MOST_PATH = 1_024
"""Characters of a path, which is below the limit of every file system once the folder is added."""
_FIELD = re.compile(r"\{(\w+)(?::(0\d))?d?\}")
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


def check_path(path: str, where: str) -> str:
    """`path` if it is plain: relative, normal, of printable characters. where: who names it.

    Raises StoreError otherwise, which shows the path with its control characters escaped.
    """
    why = None
    if len(path) > MOST_PATH:
        why = f"is longer than {MOST_PATH} characters"
    elif not path.isprintable() or "\\" in path:
        why = "has characters that no path of ours has"
    elif any(part in ("", ".", "..") for part in path.split("/")):
        why = "does not lead to a file beneath its folder"
    elif any(len(part.encode()) > 255 for part in path.split("/")):
        why = "has a part that no file system takes"
    if why is not None:
        raise StoreError(f"{where}: the path {path[:200]!r} {why}")
    return path


def open_beneath(root: Path, path: str) -> int:
    """A descriptor of the regular file `path` beneath `root`, to read. `root` itself may be reached by links.

    Raises StoreError for a path that is not plain and for what is no regular file, OSError (with the whole path) where
    there is nothing, or a link on the way.
    """
    *folders, name = check_path(path, str(root)).split("/")
    try:
        at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for folder in folders:
                inner = os.open(folder, _FOLDER, dir_fd=at)
                os.close(at)
                at = inner
            found = os.open(name, _OPEN, dir_fd=at)
        finally:
            os.close(at)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(root / path)) from error
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise StoreError(f"{root / path} is no regular file")
    return found


def filled(template: object, where: str, **place: object) -> str:
    """A dataset's path from its template, such as `data/chunk-{chunk_index:03d}/file.parquet`.

    A field takes its value and at most a width of nine digits: a template is what a file says, and the rest of
    Python's format language reaches into objects. Raises StoreError for another template, or a path that is not plain.
    """

    def value(field: re.Match[str]) -> str:
        name, width = field.groups()
        if name not in place:
            raise StoreError(f"{where}: {str(template)[:200]!r} asks for {name!r}, which a path does not have")
        return str(place[name]) if width is None else f"{int(str(place[name])):{width}d}"

    if set("{}") & set(_FIELD.sub("", str(template))):
        raise StoreError(f"{where}: {str(template)[:200]!r} is no template of a path")
    return check_path(_FIELD.sub(value, str(template)), where)


def read_beneath(root: Path, path: str, most_bytes: int | None = None) -> bytes:
    """The content of a file as `open_beneath` finds it. Raises StoreError too if it has more than most_bytes."""
    with os.fdopen(open_beneath(root, path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if most_bytes is not None and size > most_bytes:
            raise StoreError(f"{root / path} has {size} bytes; at most {most_bytes} can be")
        return file.read()


def file_beneath(root: Path, path: str) -> Path:
    """The file's path, for libraries that open it themselves: it was a regular file, with no link on the way to it.

    Raises as `open_beneath`.
    """
    os.close(open_beneath(root, path))
    return root / path


def link_beneath(root: Path, path: str, target: Path) -> None:
    """Make `target`, which must not exist, the same file, or a copy where the file system has no hard links.

    Raises as `open_beneath`. What is linked is the very file that was looked at, whatever its name leads to by now.
    """
    source = open_beneath(root, path)
    try:
        try:
            # With a descriptor of a folder, Python calls linkat(2), which is told to follow the kernel's own link.
            os.link(f"/proc/self/fd/{source}", target, src_dir_fd=source, follow_symlinks=True)
        except OSError:  # another device, or a file system without hard links; copying says what else is wrong
            with os.fdopen(source, "rb", closefd=False) as file, open(target, "xb") as copy:
                while chunk := file.read(1 << 20):
                    copy.write(chunk)
    finally:
        os.close(source)

"""SHA-256 of the files that a scene was made of, for the metadata of every episode made in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_BLOCK = 8 << 20


class AssetHashes:
    """Hashes files, each once as long as it does not change (by size, time of change and inode)."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def of(self, paths: Iterable[Path], beat: Callable[[], None] = lambda: None) -> dict[str, str]:
        """Path as text → SHA-256 (hex), sorted by path. Of a folder, all files in it; what does not exist is left out.

        beat is called at least every 8 MiB. Raises OSError for a file that cannot be read.
        """
        return {str(path): self._hash(path, beat) for path in sorted(set(_files(paths)))}

    def _hash(self, path: Path, beat: Callable[[], None]) -> str:
        facts = path.stat()
        state = (facts.st_size, facts.st_mtime_ns, facts.st_ino)
        known = self._known.get(path)
        if known is not None and known[0] == state:
            return known[1]
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                beat()
        self._known[path] = (state, digest.hexdigest())
        return self._known[path][1]


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (file for file in path.rglob("*") if file.is_file())
        elif path.is_file():
            yield path

"""Checking a dataset on disk: what every format has (checksums, metadata, packages), and what its own format checks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.beneath import open_beneath, read_beneath
from nimbusd.stages.store.conventions import SCHEMA_VERSION
from nimbusd.stages.store.made_with import ENVIRONMENT, packages_hash
from nimbusd.stages.store.piece import piece_faults
from nimbusd.stages.store.publish import CHECKSUMS, DATASET, EPISODES_METADATA, checksums_text
from nimbusd.stages.store.read import Dataset, open_dataset
from nimbusd.stages.store.stored_tree import StoredTree
from nimbusd.stages.types import Piece


def verify_dataset(output: Path, pieces: Iterable[Piece] | None = None) -> list[str]:
    """All that is wrong with the dataset at `output` (a job's output folder or a dataset), one sentence each.

    pieces: the committed ones in order; then also their files are checked, and that the dataset holds just them.
    """
    faults: list[str] = []
    pieces = None if pieces is None else list(pieces)
    for piece in pieces or ():
        faults += piece_faults(output, piece, deep=True)
    if pieces == [] and not (output / DATASET).exists():
        return faults
    try:
        dataset = open_dataset(output)
    except StoreError as error:
        return [*faults, str(error)]
    if pieces is not None:
        faults += _membership(dataset, pieces)
    for tree in dataset.trees:
        checks = {
            "checksums": _checksums(tree),
            **dataset.dataset_format.checks(tree),
            "metadata": _metadata(tree),
            "environment": _environment(tree),
        }
        for name, found in checks.items():
            faults += _guarded(name, found, tree)
    return faults


def _membership(dataset: Dataset, pieces: list[Piece]) -> list[str]:
    """Faults where the dataset's episodes are not exactly `pieces`."""
    try:
        found = {str(row["piece"]): int(row["length"]) for tree in dataset.trees for row in tree.meta}
    except (StoreError, KeyError, ValueError) as error:
        return [f"{dataset.root}: its episodes cannot be compared to the committed ones: {error}"]
    wanted = {piece.folder: piece.length for piece in pieces}
    faults = [f"{dataset.root}: committed piece {name} is missing" for name in sorted(wanted.keys() - found.keys())]
    faults += [f"{dataset.root}: piece {name} is not committed" for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & found.keys()):
        if wanted[name] != found[name]:
            faults.append(f"{dataset.root}: {name} has {found[name]} frames, {wanted[name]} were committed")
    return faults


def _guarded(name: str, found: Iterator[str], tree: StoredTree) -> list[str]:
    """The faults that a check finds; a file too damaged to look into is a fault as well."""
    faults = []
    try:
        for fault in found:
            faults.append(f"{tree.root}: {fault}")  # noqa: PERF401 - those found before an error count too
    except (OSError, ValueError, KeyError, IndexError, TypeError, StoreError, pa.ArrowException) as error:
        faults.append(f"{tree.root}: {name} cannot be checked: {type(error).__name__}: {error}")
    return faults


def _checksums(tree: StoredTree) -> Iterator[str]:
    content = read_beneath(tree.root, CHECKSUMS)
    rows: dict[str, tuple[int, str]] = orjson.loads(content)["files"]
    if content != checksums_text(rows):
        yield f"{CHECKSUMS} was changed after it was written"
    present = {path.relative_to(tree.root).as_posix() for path in tree.root.rglob("*") if not path.is_dir()}
    for path in sorted(present - rows.keys() - {CHECKSUMS}):
        yield f"{path} does not belong to the dataset"
    for path, (size, sha256) in rows.items():
        if path not in present:
            yield f"{path[:200]!r} is missing" if not path.isprintable() else f"{path} is missing"
            continue
        try:
            file = os.fdopen(open_beneath(tree.root, path), "rb")
        except OSError as error:
            yield f"{path} is reached by a link or cannot be read ({error.strerror})"
            continue
        with file:
            if (actual := os.fstat(file.fileno()).st_size) != size:
                yield f"{path} has {actual} bytes instead of {size}"
            elif hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                yield f"the content of {path} differs from its SHA-256"


def _metadata(tree: StoredTree) -> Iterator[str]:
    if len(tree.meta) != tree.episodes:
        yield f"{EPISODES_METADATA} has {len(tree.meta)} lines for {tree.episodes} episodes"
    seen: set[str] = set()
    for episode, row in enumerate(tree.meta):
        yield from _metadata_row(tree, episode, row)
        if row["episode_id"] in seen:
            yield f"episode {row['episode_id']} is there more than once"
        seen.add(row["episode_id"])


def _metadata_row(tree: StoredTree, episode: int, row: Mapping[str, Any]) -> Iterator[str]:
    if row["episode_index"] != episode:
        yield f"line {episode + 1} of {EPISODES_METADATA} is about episode {row['episode_index']}"
    if str(row["schema_version"]).split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        yield f"episode {episode} has metadata of version {row['schema_version']}, this program reads {SCHEMA_VERSION}"
    if row["label_table"] not in tree.conventions["segmentation"]["label_tables"]:
        yield f"episode {episode}: no label table {row['label_table']}"


def _environment(tree: StoredTree) -> Iterator[str]:
    """Every episode is in one environment, the one that its own metadata name."""
    if not tree.environments:
        return
    by_episode: dict[int, str] = {}
    for one in tree.environments:
        if one.packages and packages_hash(one.packages) != one.hash:
            yield f"{ENVIRONMENT}: the packages of {one.hash[:12]} are not those that this hash is of"
        for first, last in one.episodes:
            if not 0 <= first <= last < tree.episodes:
                yield f"{ENVIRONMENT} names episodes {first} to {last} of {tree.episodes}"
                return
            for episode in range(first, last + 1):
                if episode in by_episode:
                    yield f"{ENVIRONMENT}: episode {episode} is in two environments"
                by_episode[episode] = one.hash
    for episode, row in enumerate(tree.meta):
        own = str((row["run"].get("environment") or {}).get("hash", ""))
        if episode not in by_episode:
            yield f"{ENVIRONMENT}: episode {episode} is in no environment"
        elif by_episode[episode] != own:
            yield f"{ENVIRONMENT}: episode {episode} is in {by_episode[episode][:12]!r}, its metadata say {own[:12]!r}"

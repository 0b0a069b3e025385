"""Things that an output folder can do without, kept for a while: `<output>/.nimbusd/trash/<Unix seconds>.<folder>/`.

Nothing that was whole once is deleted at once: whoever finds that it was needed takes it back from there.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from nimbusd.master.output.owner import PRIVATE
from nimbusd.stages.store.piece import PIECES

log = logging.getLogger(__name__)

KEPT_S = 7 * 24 * 3600.0
_TRASH = "trash"


def trash_of(output: Path) -> Path:
    """The path of an output folder's trash."""
    return output / PRIVATE / _TRASH


def throw_away(output: Path, folder: str, why: str, now_unix_s: float) -> bool:
    """Move a folder of pieces to the trash, and log its name. False if it cannot be moved now."""
    trash = trash_of(output)
    target = trash / f"{int(now_unix_s)}.{folder}"
    try:
        trash.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        os.rename(output / PIECES / folder, target)
    except OSError as error:
        log.warning("%s cannot be put into the trash now: %s", output / PIECES / folder, error)
        return False
    log.info("%s is in the trash as %s: %s", folder, target, why)
    return True


def empty_trash(output: Path, now_unix_s: float, kept_s: float = KEPT_S) -> list[str]:
    """Delete what has been in the trash for longer than `kept_s`. Returns what is gone, by name, which is logged."""
    gone = []
    try:
        entries = sorted(entry.name for entry in os.scandir(trash_of(output)))
    except FileNotFoundError:
        return []
    for name in entries:
        since, _, folder = name.partition(".")
        if since.isdigit() and now_unix_s - int(since) > kept_s:
            try:
                shutil.rmtree(trash_of(output) / name)
            except OSError as error:
                log.warning("%s stays in the trash: %s", trash_of(output) / name, error)
                continue
            log.info("deleted %s, which had been in the trash of %s for %g s", folder, output, kept_s)
            gone.append(folder)
    return gone

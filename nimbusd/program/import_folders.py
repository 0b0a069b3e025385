"""The folders that Python imports from: whoever may write to one of them runs code as the daemon's user."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from nimbusd.config import ConfigError
from nimbusd.transport.security.ownership import open_to_others


def check_import_folders(trusted: Iterable[Path]) -> None:
    """Raise ConfigError if others than root and this user may change what this process imports.

    trusted: folders that the operator trusts, with all below them.
    """
    allowed = [Path(os.path.realpath(folder)) for folder in trusted]
    for entry in dict.fromkeys(sys.path):
        folder = Path(entry or ".").absolute()
        real = Path(os.path.realpath(folder))
        if any(real.is_relative_to(one) for one in allowed):
            continue
        if (why := open_to_others(folder, os.geteuid())) is not None:
            raise ConfigError(
                f"modules are imported from {folder}{_how_come(entry)}, and others than this user may change them: "
                f"{why}. Give it to root or to this user and close it by `chmod go-w`, leave it out, or say "
                f'trusted_import_folders = ["{folder}"] in the --config file'
            )


def _how_come(entry: str) -> str:
    if entry in ("", os.getcwd()):
        return " (the current folder)"
    return " (of PYTHONPATH)" if entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) else ""

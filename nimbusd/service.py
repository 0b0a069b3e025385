"""What the units in systemd/ keep from a daemon, for errors that would otherwise puzzle whoever set them up."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))


def why_hidden(path: Path, error: OSError, environ: Mapping[str, str] = os.environ) -> str:
    """A sentence to add to `error` about `path` if the unit of this service is why; empty if not.

    systemd sets STATE_DIRECTORY for our units, and for nothing that a person starts.
    """
    if "STATE_DIRECTORY" not in environ:
        return ""
    if any(path.is_relative_to(home) for home in _HOMES):
        return (
            " The service sees no home folders (ProtectHome= of its unit): put jobs, scenes and outputs where master "
            "and nodes may go, such as /srv/nimbusd."
        )
    if error.errno == errno.EROFS:
        return (
            " The service may write to what ReadWritePaths= of its unit names, such as /srv/nimbusd; `systemctl edit` "
            "adds to it."
        )
    return ""

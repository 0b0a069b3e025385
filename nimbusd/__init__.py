"""nimbusd makes embodied synthetic data: load, plan, render and store episodes, exactly once."""

import os
import sys

__version__ = "0.2.0"


def _require_links(folder: str) -> None:
    """Raise ImportError in a clone where git wrote text files instead of the symbolic links to the packages beside."""
    names = ("stages", "renderers", "transport", "supervisor")
    if any(os.path.isfile(os.path.join(folder, name)) for name in names):
        links = " ".join(f"nimbusd/{name}" for name in names)
        raise ImportError(
            "nimbusd is cloned without symbolic links, and needs them. Run `git config core.symlinks true` and then "
            f"`git checkout -- {links}` in {os.path.dirname(folder)}, or install a wheel."
        )


if sys.platform == "win32":
    raise ImportError("nimbusd runs on Linux, not on Windows itself. Install it in WSL 2: `wsl --install`.")
_require_links(os.path.dirname(os.path.abspath(__file__)))

"""Pages of docs/extend as programs: their code blocks as files, and the commands that they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.finished_outputs import NIMBUSCTL, REPOSITORY

PAGES = REPOSITORY / "docs" / "extend"


class GuidePage:
    """A page, and a folder in which its files lie as it says."""

    def __init__(self, name: str, folder: Path) -> None:
        self._text = (PAGES / name).read_text()
        self.folder = folder

    def block(self, language: str) -> str:
        """The page's only block in a language."""
        (block,) = re.findall(rf"```{language}\n(.*?)```", self._text, re.DOTALL)
        return str(block)

    def write(self, name: str, text: str) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.write_text(text)
        return path

    def nimbusctl(self, *args: str) -> str:
        """The output of a command that ends well, run in the folder, which is where modules are found, too."""
        paths = os.pathsep.join((str(self.folder), str(REPOSITORY)))
        command = [*NIMBUSCTL, *args]
        env = {**os.environ, "PYTHONPATH": paths}
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, f"{' '.join(args)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def forget(self, module: str) -> None:
        """Have the page's module imported anew by whoever asks for it next in this process."""
        sys.modules.pop(module, None)

"""Edits of a Python file's text by the places that its syntax tree names, so that all else stays as it was written."""

from __future__ import annotations

import ast
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Placed: TypeAlias = ast.stmt | ast.expr
"""Nodes that have a place in the text."""


@dataclass(frozen=True, order=True)
class Edit:
    """Characters `start` to `stop` of a text become `text`."""

    start: int
    stop: int
    text: str


class PythonText:
    """A file's text with its tree. Raises SyntaxError for a text that is no Python."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self._lines = io.StringIO(text).readlines()  # at newlines alone, as trees count them
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def start(self, node: Placed) -> int:
        """The place where a node begins."""
        return self._offset(node.lineno, node.col_offset)

    def stop(self, node: Placed) -> int:
        """The place where a node ends."""
        assert node.end_lineno is not None, "trees of the parser have places"
        assert node.end_col_offset is not None
        return self._offset(node.end_lineno, node.end_col_offset)

    def of(self, node: Placed) -> str:
        """The text of a node."""
        return self.text[self.start(node) : self.stop(node)]

    def replaced(self, node: Placed, text: str) -> Edit:
        """The edit that puts `text` in the place of a node."""
        return Edit(self.start(node), self.stop(node), text)

    def without(self, node: ast.stmt) -> Edit:
        """The edit that takes a statement away, with its line where that holds nothing else and is in no block."""
        first, last = self._starts[node.lineno - 1], self._starts[node.end_lineno or node.lineno]
        alone = first == self.start(node) and self.text[self.stop(node) : last].strip() == ""
        return Edit(first, last, "") if alone else Edit(self.start(node), self.stop(node), "pass")

    def before(self, node: ast.stmt, line: str) -> Edit | None:
        """The edit that puts a line before a statement, indented as that is; None where it shares its line."""
        first = self._starts[node.lineno - 1]
        indent = self.text[first : self.start(node)]
        return Edit(first, first, f"{indent}{line}\n") if indent.strip() == "" else None

    def edited(self, edits: Iterable[Edit]) -> str:
        """The text after all edits, of which none may overlap another."""
        text = self.text
        for edit in sorted(set(edits), reverse=True):
            text = text[: edit.start] + edit.text + text[edit.stop :]
        return text

    def _offset(self, line: int, column: int) -> int:
        """Trees count columns in bytes of UTF-8."""
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())

"""Docstrings say what a thing is or does: none begins with a question word."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("nimbusd", "stages", "renderers", "transport", "supervisor")
QUESTION_WORDS = frozenset(
    ["What", "Whether", "How", "Who", "Whose", "Whom", "Which", "When", "Where", "Why", "As", "So"]
)


def sources(package: str) -> list[Path]:
    """The modules of a package, without those of the folders that are linked into it."""
    files = sorted((ROOT / package).rglob("*.py"))
    return [file for file in files if not any(path.is_symlink() for path in (file, *file.parents))]


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string that stands by itself: of modules, classes, functions, fields and constants."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for child in body if isinstance(body, list) else ():
            match child:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield child.lineno, text


def asked(source: str) -> list[tuple[int, str]]:
    """The docstrings that begin with a question word."""
    return [
        (line, text.splitlines()[0])
        for line, text in docstrings(source)
        if text.split()[:1] and text.split()[0] in QUESTION_WORDS
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_docstring_of_a_package_begins_with_a_question_word(package: str) -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line}: {text}"
        for file in sources(package)
        for line, text in asked(file.read_text())
    ]
    assert found == []


def test_docstrings_of_modules_classes_fields_and_functions_are_looked_at() -> None:
    source = (
        '"""What a module is."""\n'
        "X = 1\n"
        '"""Whether it is so."""\n'
        "class A:\n"
        '    """Who it is."""\n'
        "    field: int\n"
        '    """How many there are."""\n'
        "    def method(self):\n"
        '        """Why it does."""\n'
        "    def other(self):\n"
        '        """Says what it does."""\n'
    )
    assert sorted(line for line, _ in asked(source)) == [1, 3, 5, 7, 9]

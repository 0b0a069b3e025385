"""Citations of code in texts: `path/file.py` and `path/file.py::Class.method`, in backticks."""

from __future__ import annotations

import ast
import difflib
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CITED = re.compile(r"`((?:\w+/)+\w+\.py)(?:::([\w.]+))?`")


def citations(text: str) -> list[tuple[str, str]]:
    """File and symbol of every citation, sorted; the symbol is empty where only the file is named."""
    return sorted(set(_CITED.findall(text)))


@cache
def symbols(path: Path) -> frozenset[str]:
    """Classes, functions, methods and names with a value at the top of a module; `Class.method` for methods."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.ClassDef():
                found.add(node.name)
                found |= {f"{node.name}.{name}" for name in _members(node)}
            case ast.Assign(targets=targets):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return frozenset(found)


def fault(path: str, symbol: str) -> str:
    """The fault of a citation, and where the thing is now; empty where it is right."""
    file = ROOT / path
    if not file.is_file():
        return f"{path} is not there{_elsewhere(Path(path).name, symbol)}"
    if symbol and symbol not in symbols(file):
        return f"{path} has no {symbol}{_elsewhere('', symbol)}; it has {', '.join(_nearest(symbol, file))}"
    return ""


def _nearest(symbol: str, file: Path) -> list[str]:
    """Names of the module that are most like the symbol."""
    return difflib.get_close_matches(symbol, symbols(file), n=3, cutoff=0.4)


def _members(node: ast.ClassDef) -> set[str]:
    methods = {child.name for child in node.body if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))}
    fields = {
        child.target.id
        for child in node.body
        if isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name)
    }
    return methods | fields


def _elsewhere(name: str, symbol: str) -> str:
    """The files that have the symbol, or a file of that name."""
    last = symbol.rpartition(".")[2]
    found = [
        str(file.relative_to(ROOT))
        for folder in ("nimbusd", "stages", "renderers", "transport", "supervisor")
        for file in sorted((ROOT / folder).rglob("*.py"))
        if (symbol and (symbol in symbols(file) or last in symbols(file))) or (not symbol and file.name == name)
    ]
    return f"; look at {', '.join(found[:4])}" if found else ""

"""Workflows of the open-source engine as workflows of ours: the changes in a file's text that are mechanical.

What needs a person's judgement is remarked on with its line (see `ported_remarks`); what cannot work as it is written
and has no mechanical counterpart is refused.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nimbusd.job.ported_remarks import engine_classes, remarks_on
from nimbusd.job.problems import JobError, Problem
from nimbusd.job.source_edits import Edit, PythonText

OURS = "nimbusd.stages.workflow"
BASE = "NimbusWorkFlow"
_CODECS = ("dumps", "loads", "dump", "load")
_SETTINGS = ("protocol", "fix_imports", "encoding", "errors")
"""Keywords of pickle that mean nothing to our codec."""

_OTHER_CODECS = ("cloudpickle", "dill", "joblib", "_pickle", "shelve", "marshal")
_LOOPS = ("generate_seq", "seq_replay", "generate_seq_with_obs", "plan_with_render")
"""Methods that take long, and must beat in their loops."""


@dataclass(frozen=True)
class Ported:
    """text: of the changed file. diff: from the given file, unified. remarks: what is left to do by hand, by line."""

    text: str
    diff: str
    remarks: tuple[Problem, ...]


def port_workflow(path: Path) -> Ported:
    """The workflow file at `path`, moved over. Raises JobError with each thing in it that cannot be, and its line."""
    try:
        written = path.read_text(encoding="utf-8")
        source = PythonText(written)
    except (OSError, UnicodeDecodeError) as error:
        raise JobError([Problem(str(path), f"the file cannot be read: {error}")]) from error
    except SyntaxError as error:
        raise JobError([Problem(f"{path}:{error.lineno or 1}", f"this is no Python: {error.msg}")]) from error
    port = _Port(source, path)
    port.run()
    if port.refused:
        raise JobError(Problem(f"{path}:{line}", text) for line, text in sorted(set(port.refused)))
    text = source.edited(port.edits)
    ast.parse(text)
    lines = difflib.unified_diff(
        written.splitlines(keepends=True), text.splitlines(keepends=True), str(path), f"{path} (moved over)"
    )
    remarks = [Problem(f"{path}:{line}", said) for line, said in sorted({*port.remarks, *remarks_on(source, path)})]
    return Ported(text, "".join(lines), tuple(remarks))


class _Port:
    def __init__(self, source: PythonText, path: Path) -> None:
        self._source = source
        self._engine_folder = path.absolute().parent.name == "workflows"
        self._bases: list[ast.ImportFrom] = []
        self._pickles: dict[str, str] = {}
        self._pickle_imports: list[tuple[ast.Import | ast.ImportFrom, list[ast.alias]]] = []
        self._wanted: set[str] = set()
        self.edits: list[Edit] = []
        self.refused: list[tuple[int, str]] = []
        self.remarks: list[tuple[int, str]] = []

    def run(self) -> None:
        for node in ast.walk(self._source.tree):
            if isinstance(node, ast.ImportFrom):
                self._import_from(node)
            elif isinstance(node, ast.Import):
                self._import(node)
        if not self._bases:
            text = f"no import of {BASE} from workflows.base: this is no workflow of the engine"
            self._refuse(1, f"{text}, or it is moved over already")
            return
        self._replace_pickles()
        self._register()
        for kind in engine_classes(self._source.tree):
            self._beat(kind)
        self._import_ours()

    def _refuse(self, line: int, text: str) -> None:
        self.refused.append((line, text))

    # --- imports ---

    def _import_from(self, node: ast.ImportFrom) -> None:
        module, names = node.module or "", [alias.name for alias in node.names]
        if module in ("workflows.base", "base") and BASE in names and (node.level or module != "base"):
            for name in names:
                if name != BASE:
                    self._refuse(node.lineno, f"'{name}' of the engine has no counterpart: take its uses out")
            self._bases.append(node)
        elif module == "pickle" and not node.level:
            for alias in node.names:
                if alias.name not in _CODECS:
                    self._refuse(node.lineno, f"pickle's '{alias.name}' has no counterpart in pack and unpack")
                self._pickles[alias.asname or alias.name] = alias.name
            self._pickle_imports.append((node, []))
        elif module.partition(".")[0] in _OTHER_CODECS and not node.level:
            self._refuse(node.lineno, f"'{module}' makes pickles, which must not cross processes; use pack and unpack")
        elif node.level == 1 and self._engine_folder and module:
            start = self._source.start(node)
            dots = self._source.text.index(".", start)
            self.edits.append(Edit(dots, dots + 1, "workflows."))

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name == "workflows.base":
                text = f"write 'from workflows.base import {BASE}' instead, which can be replaced"
                self._refuse(node.lineno, text)
            elif alias.name == "pickle":
                self._pickles[f"{alias.asname or 'pickle'}."] = ""
                rest = [other for other in node.names if other.name != "pickle"]
                self._pickle_imports.append((node, rest))
            elif alias.name.partition(".")[0] in _OTHER_CODECS:
                self._refuse(
                    node.lineno, f"'{alias.name}' makes pickles, which must not cross processes; use pack and unpack"
                )

    def _import_ours(self) -> None:
        taken = {node.name for node in self._source.tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        names = {node.id: node.lineno for node in ast.walk(self._source.tree) if isinstance(node, ast.Name)}
        for word in sorted(self._wanted):
            if word in taken or word in names:
                self._refuse(names.get(word, 1), f"'{word}' has a meaning here already; call yours something else")
        for number, node in enumerate(self._bases):
            said = [f"{alias.name} as {alias.asname}" if alias.asname else alias.name for alias in node.names]
            said += sorted(self._wanted) if number == 0 else []
            self.edits.append(self._source.replaced(node, f"from {OURS} import {', '.join(said)}"))

    # --- pickles ---

    def _replace_pickles(self) -> None:
        calls = {id(node.func): node for node in ast.walk(self._source.tree) if isinstance(node, ast.Call)}
        for node in ast.walk(self._source.tree):
            if not isinstance(node, ast.Attribute | ast.Name) or (word := self._codec(node)) is None:
                continue
            call = calls.get(id(node))
            if word not in _CODECS:
                self._refuse(node.lineno, f"pickle's '{word}' has no counterpart in pack and unpack")
            elif call is None:
                text = f"pickle's '{word}' is handed on instead of called; write a function with pack and unpack"
                self._refuse(node.lineno, text)
            else:
                self._replace_call(call, word)
        for statement, rest in self._pickle_imports:
            names = ", ".join(f"{alias.name} as {alias.asname}" if alias.asname else alias.name for alias in rest)
            edit = self._source.replaced(statement, f"import {names}") if rest else self._source.without(statement)
            self.edits.append(edit)

    def _codec(self, node: ast.Attribute | ast.Name) -> str | None:
        """The function of pickle that a node speaks of; None where of none."""
        if isinstance(node, ast.Name):
            return self._pickles.get(node.id)
        is_pickles = isinstance(node.value, ast.Name) and f"{node.value.id}." in self._pickles
        return node.attr if is_pickles else None

    def _replace_call(self, call: ast.Call, word: str) -> None:
        wanted = 2 if word == "dump" else 1
        strange = [key.arg or "**" for key in call.keywords if key.arg not in _SETTINGS]
        if strange or len(call.args) < wanted or any(isinstance(arg, ast.Starred) for arg in call.args):
            self._refuse(call.lineno, f"this call of pickle's '{word}' has arguments that pack and unpack do not know")
            return
        source, first = self._source, call.args[0]
        ours = "pack" if word.startswith("dump") else "unpack"
        self._wanted.add(ours)
        start, stop = source.start(call), source.stop(call)
        value = (source.start(first), source.stop(first))
        opening = {"dump": f"{source.of(call.args[1])}.write(pack(" if wanted == 2 else "", "load": "unpack(("}
        closing = {"dump": "))", "load": ").read())"}
        if word == "load" and isinstance(first, (ast.Name, ast.Attribute)):
            opening, closing = {"load": "unpack("}, {"load": ".read())"}
        self.edits.append(Edit(start, value[0], opening.get(word, f"{ours}(")))
        self.edits.append(Edit(value[1], stop, closing.get(word, ")")))

    # --- registration and beats ---

    def _register(self) -> None:
        """`NimbusWorkFlow.workflows["Name"] = MyWorkflow` goes round the check for names that are taken."""
        for node in ast.walk(self._source.tree):
            if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript)):
                continue
            target = node.targets[0]
            table = target.value
            if isinstance(table, ast.Attribute) and table.attr == "workflows" and len(node.targets) == 1:
                base, name, made = (self._source.of(part) for part in (table.value, target.slice, node.value))
                self.edits.append(self._source.replaced(node, f"{base}.register({name})({made})"))

    def _beat(self, kind: ast.ClassDef) -> None:
        for method in kind.body:
            if not isinstance(method, ast.FunctionDef) or method.name not in _LOOPS:
                continue
            if any(isinstance(node, ast.Attribute) and node.attr == "beat" for node in ast.walk(method)):
                continue
            loops = list(_outer_loops(method))
            for loop in loops:
                edit = self._source.before(loop.body[0], "self.beat()")
                if edit is None:
                    self.remarks.append((loop.lineno, "call self.beat() in this loop"))
                else:
                    self.edits.append(edit)
            if not loops:
                self.remarks.append((method.lineno, f"call self.beat() at every step of what {method.name} does"))


def _outer_loops(node: ast.AST) -> Iterator[ast.For | ast.While]:
    """Loops that are in no other loop, and in no function within."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.For, ast.While)):
            yield child
        elif not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield from _outer_loops(child)

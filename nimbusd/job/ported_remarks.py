"""Remarks on what a person has to look at in a workflow that is moved over: lines and sentences."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from nimbusd.job.source_edits import PythonText

Remark = tuple[int, str]
_BASE = "NimbusWorkFlow"
_ENGINE = ("workflows", "nimbus", "nimbus_extension", "deps")
_SIMULATOR = ("omni", "isaacsim", "pxr", "carb")
_CLOCKS = ("time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "uuid.uuid4", "os.urandom")
_SEEDS = ("random.seed", "np.random.seed", "numpy.random.seed")
_ANSWERS = {
    "randomization": "True or False",
    "randomization_from_mem": "True or False",
    "generate_seq": "a list of states",
    "seq_replay": "a number of frames",
    "save": "a number of frames",
    "save_seq": "a number of frames",
    "dump_plan_info": "bytes",
    "recover_seq": "a list of states",
    "recover_seq_from_mem": "a list of states",
}
_HANDED = ("self", "world", "task_cfg_path")


def engine_classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    """Classes that extend the engine's base class, directly or by another class of the file."""
    known = {_BASE}
    known |= {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == _BASE
    }
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and known & {ast.unparse(base) for base in node.bases}:
            known.add(node.name)
            yield node


def remarks_on(source: PythonText, path: Path) -> Iterator[Remark]:
    """All remarks, in no promised order."""
    yield from _on_imports(source.tree)
    yield from _on_calls(source.tree)
    classes = list(engine_classes(source.tree))
    if not classes:
        yield 1, f"no class here extends {_BASE}"
    for kind in classes:
        yield from _on_class(kind, path)


def _on_imports(tree: ast.Module) -> Iterator[Remark]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module != "workflows.base":
            modules = [("workflows." if node.level else "") + (node.module or "")]
            if node.level and "base" in (node.module or ""):
                continue
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        for module in modules:
            if module.partition(".")[0] in _ENGINE:
                yield node.lineno, f"'{module}' is the engine's or your own: it must be on PYTHONPATH of every node"
            elif module.partition(".")[0] in _SIMULATOR and not node.col_offset:
                text = "can be imported only after its application was started: start it in create_world()"
                yield node.lineno, f"'{module}' {text}, and import it within methods"


def _on_calls(tree: ast.Module) -> Iterator[Remark]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in _CLOCKS:
            yield node.lineno, f"{name}() is another at every run: leave it out of file names, seeds and data"
        elif name in _SEEDS:
            yield (
                node.lineno,
                f"{name}() undoes the seed that each episode was given: leave it out, or draw from self.rng",
            )


def _on_class(kind: ast.ClassDef, path: Path) -> Iterator[Remark]:
    name = _registered(kind)
    place = f"{path.stem}:{kind.name}"
    if name is None:
        yield kind.lineno, f"{kind.name} is not registered: jobs name it as `workflow_type: my_package.{place}`"
    else:
        text = f'let jobs find it by an entry point of the group nimbusd.workflows: {name} = "my_package.{place}"'
        yield kind.lineno, f"{text}, or name it as `workflow_type: my_package.{place}`"
    methods = {node.name: node for node in kind.body if isinstance(node, ast.FunctionDef)}
    uses_world = any(isinstance(node, ast.Attribute) and node.attr == "world" for node in ast.walk(kind))
    if uses_world and "create_world" not in methods:
        yield (
            kind.lineno,
            "self.world is the job's `simulator` settings unless a class method create_world(cls, simulator) "
            "makes and returns what the engine's EnvLoader made: the application and its world",
        )
    for word, method in methods.items():
        if word in _ANSWERS and not _answers(method):
            yield method.lineno, f"{word}() must return {_ANSWERS[word]}"
    if "__init__" in methods:
        yield from _on_init(methods["__init__"])


def _registered(kind: ast.ClassDef) -> str | None:
    for decorator in kind.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith("register") and decorator.args:
            return ast.unparse(decorator.args[0]).strip("'\"")
    return None


def _answers(method: ast.FunctionDef) -> bool:
    nodes = list(ast.walk(method))
    raises = isinstance(method.body[-1], ast.Raise)
    return raises or any(isinstance(node, ast.Return) and node.value is not None for node in nodes)


def _on_init(method: ast.FunctionDef) -> Iterator[Remark]:
    given = [argument.arg for argument in (*method.args.args, *method.args.kwonlyargs)]
    for name in given:
        if name in ("random_seed", "scene_info"):
            yield (
                method.lineno,
                f"'{name}' is not handed over unless workflow_args have it"
                + ("; every episode has its own seed, from which self.rng draws" if name == "random_seed" else ""),
            )
        elif name not in _HANDED:
            yield method.lineno, f"'{name}' comes from the job's workflow_args"

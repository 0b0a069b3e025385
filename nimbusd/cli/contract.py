"""`nimbusctl check --component`: the contract of one component, tried in processes of its own, as a table."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import orjson
from rich.markup import escape
from rich.table import Table

from nimbusd.cli.console import make_console
from nimbusd.core.words import counted
from nimbusd.stages.stage_names import STAGES
from nimbusd.stages.yaml_text import YamlError, read_yaml, read_yaml_file
from nimbusd.testing import ContractReport, ContractVerdict, TestPlan, check_component

_COLORS = {ContractVerdict.HOLDS: "green", ContractVerdict.FAILS: "red", ContractVerdict.UNTRIED: "yellow"}
FAILED, UNTRIED = 2, 3
"""Exit statuses: a line fails; none does, but some could not be tried here."""


def run_contract(
    component: str,
    *,
    args: str | None,
    scene: str | None,
    beside: str | None,
    device: str,
    runs: int | None,
    as_json: bool,
) -> None:
    """Try the component, print the findings, and exit with the status that they mean.

    args, scene, beside: YAML mappings, or `@FILE` with one. Raises click.BadParameter for another thing.
    """
    plan = TestPlan() if runs is None else replace(TestPlan(), runs=runs)
    report = check_component(
        component,
        _mapping("--args", args),
        scene=_mapping("--scene", scene),
        beside=_beside(beside),
        device=device,
        plan=plan,
    )
    if as_json:
        sys.stdout.write(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _print(report)
    if report.failed:
        sys.exit(FAILED)
    if report.untried:
        sys.exit(UNTRIED)


def _mapping(option: str, text: str | None) -> Mapping[str, Any]:
    if text is None:
        return {}
    try:
        value = read_yaml_file(Path(text[1:])).value if text.startswith("@") else read_yaml(text).value
    except (YamlError, OSError) as error:
        raise click.BadParameter(f"{text!r:.80} cannot be read as YAML: {error}", param_hint=option) from error
    if not isinstance(value, dict):
        raise click.BadParameter(f"{text!r:.80} is no mapping, such as '{{seed: 3}}'", param_hint=option)
    return value


def _beside(text: str | None) -> Mapping[str, Mapping[str, Any]]:
    value = _mapping("--beside", text)
    for stage, spec in value.items():
        if stage not in STAGES or not isinstance(spec, dict) or "component" not in spec:
            stages = ", ".join(STAGES)
            text = f"{stage!r:.40} must be a stage ({stages}) with a `component`, and perhaps `args`, as in a job file"
            raise click.BadParameter(text, param_hint="--beside")
    return value


def _print(report: ContractReport) -> None:
    console = make_console(soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column in ("line", "verdict", "evidence"):
        table.add_column(column, overflow="fold")
    for finding in report.findings:
        color = _COLORS[finding.verdict]
        table.add_row(finding.line, f"[{color}]{finding.verdict}[/]", escape(finding.evidence))
    console.print(f"[bold]{escape(report.component)}[/] ({report.stage or 'no component'})")
    console.print(table)
    if report.failed:
        verb = "fails" if len(report.failed) == 1 else "fail"
        console.print(f"[red]{counted(len(report.failed), 'line')} of the contract {verb}.[/]")
    elif report.untried:
        console.print(f"[yellow]{counted(len(report.untried), 'line')} could not be tried here;[/] the others hold.")
    else:
        console.print("[green]OK:[/] every line of the contract holds.")

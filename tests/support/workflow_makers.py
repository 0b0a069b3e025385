"""Episodes of the toy workflow, made and stored in this process, for tests of writers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nimbusd.stages.runner import run_stages
from nimbusd.stages.types import Episode, Piece
from tests.support.toy_workflow import task_file
from tests.support.workflow_process import components_of, requests_of, scene_of


def store(
    output: Path,
    writer: str,
    args: dict[str, Any],
    *,
    episodes: int = 2,
    plan: dict[str, Any] | None = None,
    **task: Any,
) -> list[Episode]:
    """Make episodes 0 … of the toy's task `lift` with these settings, and store them in `output`."""
    settings = {
        "workflow": "tests.support.toy_workflow:ToyArm",
        "tasks": str(task_file(output.parent, **task)),
        "writer": writer,
        "store": args,
        "plan": plan or {},
        "episodes": list(range(episodes)),
        "seed": 5,
    }
    output.mkdir(parents=True, exist_ok=True)
    components = components_of(settings)
    made = run_stages(
        components,
        requests_of(settings),
        job_seed=5,
        scene_config=lambda _: scene_of(settings),
        output=output,
        context={},
        writers=0,
    )
    return list(made)


def publish(output: Path, writer: str, args: dict[str, Any], episodes: list[Episode]) -> Path:
    """The final dataset of the episodes' pieces, all of which must have been stored."""
    from nimbusd.stages.registry import create

    assert [episode.failure for episode in episodes] == [None] * len(episodes)
    pieces: list[Piece] = [episode.piece for episode in episodes if episode.piece is not None]
    return create(writer, "store", args).publish(output, pieces, {"name": "toy"}, True)

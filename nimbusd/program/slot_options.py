"""The command line options that say where compute workers run, the same for `nimbusd worker` and `nimbusctl run`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def _gpu_list(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """`0,2`: GPUs as nvidia-smi counts them; `none`: no GPU."""
    if value is None or value == "none":
        return None if value is None else ()
    words = [word.strip() for word in value.split(",")]
    if not all(word.isdecimal() for word in words):
        sentence = f"{value!r} is neither `none` nor a list of GPUs by number, such as 0,2"
        raise click.BadParameter(sentence, context, option)
    return tuple(int(word) for word in words)


_OPTIONS = (
    click.option(
        "--workers",
        type=click.IntRange(0, 256),
        help="CPU slots [default: one per core that no GPU slot needs, at most 8]. Beside GPU slots they only plan.",
    ),
    click.option(
        "--gpus",
        callback=_gpu_list,
        metavar="0,2|none",
        help="GPUs to use, as nvidia-smi counts [default: those of CUDA_VISIBLE_DEVICES, or all].",
    ),
    click.option("--slots-per-gpu", type=click.IntRange(1, 16), help="Compute workers on each GPU [default: 2]."),
    click.option(
        "--spares",
        type=click.IntRange(0, 16),
        help="Processes kept warm to take the place of a compute worker that is gone [default: 1].",
    ),
)


def slot_options(command: F) -> F:
    """Add them to a command, as parameters `workers`, `gpus`, `slots_per_gpu` and `spares`; None where not given."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command

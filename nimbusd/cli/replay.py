"""`nimbusctl replay EPISODE`: one episode again, here and now, to see why it failed or whether it comes out equal."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import orjson
from click.core import ParameterSource
from rich.markup import escape

from nimbusd.cli.connect import INTERRUPTED, USAGE, ClusterCommand, connect
from nimbusd.cli.console import Console, make_console
from nimbusd.core.environments import environment_of, names_that_count
from nimbusd.job import JobError, read_apart
from nimbusd.master.output.folder import ledger_path
from nimbusd.node.environment import packages
from nimbusd.replay import (
    Comparison,
    Difference,
    Outcome,
    Recorded,
    ReplayRequest,
    Tolerance,
    UnknownEpisode,
    compare_pieces,
    configuration_changes,
    configuration_now,
    recorded_by_master,
    recorded_in_output,
    renderer_changes,
    replay_episode,
)
from nimbusd.stages.stage_names import STAGES

AGAIN, OTHERWISE, DIFFERENT = 1, 5, 6
_DEATHS = frozenset({"crash", "exit"})
_HELP = (
    "Exit status: 0 it was made, equal to what is committed (or within the tolerance) if anything is; 1 it failed "
    "again as recorded, or failed and nothing was on record; 5 it failed, but otherwise than recorded; 6 it came out "
    "different from what is committed; 2 wrong usage or no such episode, 3 the master cannot be reached, 4 it refuses, "
    "130 interrupted."
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a replay.

    word: `made`, `equal`, `equal_within`, `diverged`, `different`, `failed_again`, `failed` or `failed_otherwise`.
    """

    word: str
    text: str
    status: int


@click.command(
    cls=ClusterCommand,
    epilog=f"Examples: nimbusctl replay my_job/kitchen/5; nimbusctl replay my_job.yaml kitchen/5 --stage plan. {_HELP}",
)
@click.argument("episode", nargs=-1, required=True, metavar="[JOB.yaml] EPISODE")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), help="The job's output folder, for SCENE/INDEX."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of JOB.yaml.")
@click.option("--stage", type=click.Choice(STAGES), default="store", show_default=True, help="Stop after this stage.")
@click.option("--debugger", is_flag=True, help="Stop in pdb where a component raises an exception.")
@click.option(
    "--attempt-timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Kill the attempt after this time [default: the job's episode_timeout_s; its beat timeouts hold as well].",
)
@click.option("--device", default="auto", show_default=True, help="What the renderer runs on: auto, cpu, cuda:0.")
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Leave what was made in this new folder."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=Tolerance().numbers,
    show_default=True,
    help="How far numbers may be from the committed ones, in their own units (relative above 1); depth in metres.",
)
@click.option(
    "--pixel-tolerance",
    type=click.FloatRange(0, 255),
    default=Tolerance().levels,
    show_default=True,
    help="How far pixels may be from the committed ones, in levels of 255.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def replay(
    episode: tuple[str, ...],
    output: Path | None,
    overrides: tuple[str, ...],
    stage: str,
    debugger: bool,
    attempt_timeout: float | None,
    device: str,
    keep: Path | None,
    tolerance: float,
    pixel_tolerance: float,
    as_json: bool,
) -> None:
    """Make one EPISODE again in the foreground, from its recorded seed and configuration.

    EPISODE is JOB/SCENE/INDEX, looked up in out/JOB and then at the master; or SCENE/INDEX after a JOB.yaml, or with
    --output. Without --debugger it is killed when it hangs, as on a node. Nothing is written to the job's output or
    its ledger. A committed episode is compared with its piece; what is configured or installed otherwise than on record
    is told as well.
    """
    console = make_console(stderr=as_json)
    try:
        recorded = _find(episode, output, overrides)
    except UnknownEpisode as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(USAGE)
    except JobError as error:
        click.echo("\n".join(f"error: {problem}" for problem in error.problems), err=True)
        sys.exit(USAGE)
    now = configuration_now(recorded.job, recorded.scene)
    then = environment_of(recorded.packages, None).packages
    here = environment_of(packages(), names_that_count(None, then)).packages  # what is on record is compared
    changes = configuration_changes(recorded.configuration, now, then, here)
    _tell_record(console, recorded, changes)
    with ExitStack() as stack:
        folder = _fresh(keep) or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nimbusd-replay-")))
        request = ReplayRequest(
            recorded.job,
            recorded.scene,
            recorded.index,
            folder,
            attempt=recorded.attempt,
            until=stage,
            device=device,
            timeout_s=attempt_timeout,
            debugger=debugger,
        )
        try:
            outcome = replay_episode(
                request,
                lambda name, seconds: console.print(f"  {name:<10}{seconds:>9.2f} s"),
                sys.stderr if as_json else None,
            )
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        allowed = Tolerance(tolerance, pixel_tolerance)
        compared = _compare(recorded, outcome, folder, allowed)
        otherwise = renderer_changes((recorded.output, recorded.folder), (folder, outcome.folder)) if compared else []
    verdict = judge(recorded, outcome, compared, stage, allowed)
    if as_json:
        _print_json(recorded, changes + otherwise, outcome, compared, verdict, keep)
    else:
        _tell_changes(console, otherwise)
        _tell_verdict(console, outcome, compared, verdict)
        if keep is not None:
            console.print(f"kept in {keep}", soft_wrap=True, markup=False)
    sys.exit(verdict.status)


# --- which episode ---


def _find(words: tuple[str, ...], output: Path | None, overrides: tuple[str, ...]) -> Recorded:
    """The episode that was named, and what is on record of it."""
    if len(words) > 2:
        raise click.UsageError("one episode at a time: [JOB.yaml] EPISODE")
    job, scene, index = _parse(words[-1])
    if len(words) == 2:
        read = read_apart(Path(words[0]), output=output, overrides=overrides).job
        if job not in (None, read.name):
            raise click.UsageError(f"{words[0]} is job {read.name}, not {job}")
        return recorded_in_output(read.output, scene, index, read)
    if overrides:
        raise click.UsageError("--set changes a JOB.yaml: name it before the episode")
    if output is not None:
        found = recorded_in_output(output.resolve(), scene, index)
        if job not in (None, found.job.name):
            raise click.UsageError(f"{output} belongs to job {found.job.name}, not {job}")
        return found
    if job is None:
        raise click.UsageError(
            f"of which job is {words[-1]}? Write JOB/{words[-1]}, name a JOB.yaml before it, or give --output"
        )
    here = Path("out").absolute() / job
    asked_for_master = click.get_current_context().get_parameter_source("master") == ParameterSource.COMMANDLINE
    if ledger_path(here).exists() and not asked_for_master:
        return recorded_in_output(here, scene, index)
    with connect() as client:
        return recorded_by_master(client, job, scene, index)


def _parse(text: str) -> tuple[str | None, str, int]:
    """(job, scene, index) of `[JOB/]SCENE/INDEX`."""
    match text.split("/"):
        case [job, scene, index] if job and scene and index.isdecimal():
            return job, scene, int(index)
        case [scene, index] if scene and index.isdecimal():
            return None, scene, int(index)
    raise click.UsageError(f"'{text}' is not an episode: write JOB/SCENE/INDEX or SCENE/INDEX, such as kitchen/5")


def _fresh(keep: Path | None) -> Path | None:
    """The folder to keep the piece in, made. Raises UsageError if there is something in it."""
    if keep is None:
        return None
    if keep.exists() and any(keep.iterdir()):
        raise click.UsageError(f"--keep {keep} is not empty; name a new folder")
    keep.mkdir(parents=True, exist_ok=True)
    return keep.absolute()


# --- what became of it ---


def _compare(recorded: Recorded, outcome: Outcome, folder: Path, allowed: Tolerance) -> Comparison | None:
    """Compare the piece with the committed one, where there are two."""
    if not outcome.folder or not recorded.folder:
        return None
    return compare_pieces((recorded.output, recorded.folder), (folder, outcome.folder), recorded.digest, allowed)


def judge(
    recorded: Recorded, outcome: Outcome, compared: Comparison | None, until: str, allowed: Tolerance | None = None
) -> Verdict:
    """Judge the replay of an episode by its record."""
    if outcome.failed:
        return _judge_failure(recorded, outcome)
    if compared is not None:
        return _judge_difference(compared, allowed or Tolerance())
    through = "was made" if until == "store" else f"is through with {until}"
    if recorded.failure.reason and STAGES.index(until) >= _place(recorded.failure.stage):
        was = f"{recorded.failure.stage}: {recorded.failure.reason}"
        return Verdict("made", f"{through}; what is on record ({was}) did not happen again", 0)
    if recorded.failure.reason:
        return Verdict("made", f"{through}; on record is a failure in {recorded.failure.stage}, after that", 0)
    return Verdict("made", through, 0)


def _judge_difference(compared: Comparison, allowed: Tolerance) -> Verdict:
    if compared.equal:
        return Verdict("equal", "came out equal: every number and every pixel of the episode", 0)
    if compared.within:
        limits = f"{allowed.numbers:g}" + f" and {allowed.levels:g} of 255 levels" * bool(allowed.levels)
        largest = f"; the largest difference: {compared.largest}" if compared.largest else ""
        return Verdict("equal_within", f"came out equal within {limits}{largest}", 0)
    media = "; its state columns are equal" if compared.state_equal else ""
    if (first := compared.diverged) is not None:
        return Verdict("diverged", f"DIVERGED at frame {first.frame} from what is committed: {first}{media}", DIFFERENT)
    return Verdict("different", f"came out DIFFERENT from what is committed{media}", DIFFERENT)


def _judge_failure(recorded: Recorded, outcome: Outcome) -> Verdict:
    now = f"{outcome.stage}: {outcome.reason}"
    if (recorded.failure.stage, recorded.failure.reason) == (outcome.stage, outcome.reason):
        return Verdict("failed_again", f"failed again as recorded, {now}", AGAIN)
    if (
        recorded.failure.reason == outcome.reason
        and outcome.reason in _DEATHS
        and _place(recorded.failure.stage) < _place(outcome.stage)
    ):
        note = f"on record is {recorded.failure.stage}, the last stage that its node had heard of"
        return Verdict("failed_again", f"failed again as recorded, {now} ({note})", AGAIN)
    if recorded.failure.reason:
        was = f"{recorded.failure.stage}: {recorded.failure.reason}"
        return Verdict("failed_otherwise", f"failed, but otherwise than recorded: {now} instead of {was}", OTHERWISE)
    if recorded.state == "committed":
        return Verdict("failed_otherwise", f"failed in {now}, although it is committed", OTHERWISE)
    return Verdict("failed", f"failed in {now}", AGAIN)


def _place(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else 0


def _tell_record(console: Console, recorded: Recorded, changes: list[str]) -> None:
    console.print(f"[bold]{escape(recorded.episode_id)}[/], seed {recorded.job.seed}", soft_wrap=True)
    match recorded.state:
        case "committed":
            text = f"committed at attempt {recorded.attempt}"
        case "open":
            text = "no end of it yet"
        case state:
            failure = recorded.failure
            text = f"{state} at attempt {recorded.attempt}, {failure.stage}: {failure.reason}, {failure.detail}"
    console.print(f"[dim]on record: {escape(text)} ({escape(recorded.source)})[/]", soft_wrap=True)
    if recorded.changed:
        console.print("[yellow]the job has other scenes, seed or pipeline than when that was recorded[/]")
    if recorded.state != "open" and not recorded.packages:
        console.print("[dim]with which packages it was made is not on record[/]")
    elif recorded.state != "open" and not changes:
        console.print("[dim]configuration and packages are as on record[/]")
    _tell_changes(console, changes)


def _tell_changes(console: Console, changes: list[str]) -> None:
    for change in changes:
        console.print(f"[yellow]  {escape(change)}[/]", soft_wrap=True)


def _tell_verdict(console: Console, outcome: Outcome, compared: Comparison | None, verdict: Verdict) -> None:
    if outcome.frames is not None:
        console.print(f"  {outcome.frames} frames")
    if outcome.failed:
        if outcome.evidence:
            console.print(outcome.evidence.rstrip(), style="dim", markup=False, soft_wrap=True)
        console.print(outcome.detail, markup=False, soft_wrap=True)
    if compared is not None:
        for difference in sorted(compared.differences, key=_weight):
            console.print(f"  {difference}", markup=False, soft_wrap=True)
    color = "green" if verdict.status == 0 else "red"
    console.print(f"[bold {color}]{escape(verdict.text)}[/]", soft_wrap=True)


def _weight(difference: Difference) -> tuple[bool, bool]:
    """Those that are tolerated last, and of the others states before media."""
    return difference.tolerated, difference.media


def _print_json(
    recorded: Recorded,
    changes: list[str],
    outcome: Outcome,
    compared: Comparison | None,
    verdict: Verdict,
    keep: Path | None,
) -> None:
    record = asdict(recorded)
    for key in ("job", "output", "scene", "index", "configuration"):
        del record[key]
    failure = record.pop("failure")
    del failure["kind"]
    record |= failure
    first = compared.diverged if compared is not None else None
    document = {
        "episode": recorded.episode_id,
        "seed": recorded.job.seed,
        "recorded": record,
        "configuration_changes": changes,
        "outcome": asdict(outcome),
        "compared": None if compared is None else asdict(compared),
        "diverged_at_frame": None if first is None else first.frame,
        "verdict": verdict.word,
        "text": verdict.text,
        "kept": None if keep is None else str(keep),
    }
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")

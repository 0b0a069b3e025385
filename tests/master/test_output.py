"""Output folders: what is swept, what stays, and what `publish` and `verify` say with the ledger here or elsewhere."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from nimbusd.cli.output import output
from nimbusd.cli.publish import publish, verify
from nimbusd.cli.repair import repair
from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.core.records import JobRow, Record, State
from nimbusd.job import Job, read_job
from nimbusd.job.job import StageSpec
from nimbusd.master.backup import BackupError, make_backup, restore
from nimbusd.master.intake.adoption import is_of_job
from nimbusd.master.ledger.ledger import Ledger, LedgerError
from nimbusd.master.ledger.thread import LedgerThread
from nimbusd.master.output.folder import LedgerPlace, OutputBusy, claim_output, ledger_place, recall_job, remember_job
from nimbusd.master.output.outputs import Outputs
from nimbusd.stages import EpisodeRequest, Piece
from nimbusd.stages.errors import NimbusError, OutputGone
from nimbusd.stages.stage_names import Stage
from nimbusd.stages.store.piece import PIECES, manifest_digest, piece_folder
from tests.support.records import record_of
from tests.support.store_makers import make_writer, store_episode
from tests.support.toy_jobs import scenes, write_toy_job

NAME = JobId("job")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job whose pieces `tests.support.store_makers` makes: scene `room`, stored by NavWriter."""
    pipeline = {"store": {"component": "NavWriter", "args": {"codec": "h264"}}}
    found = read_job(write_toy_job(tmp_path / "job.yaml", pipeline, name=str(NAME), scenes=scenes("room")))
    (found.output / PIECES).mkdir(parents=True)
    (found.output / ".nimbusd").mkdir()
    return found


def open_ledger(path: Path, job: Job) -> Ledger:
    ledger = Ledger.open(path)
    ledger.put_job(JobRow(NAME, job.fingerprint(), job.to_dict(), "ada", 0, 0, True, "", 1.0))
    return ledger


def store(job: Job, index: int) -> Piece:
    return store_episode(make_writer(codec="h264"), job.output, index)


def commit(piece: Piece, index: int) -> Record:
    digest = manifest_digest(piece)
    return record_of(
        EpisodeKey(NAME, "room", index),
        State.COMMITTED,
        folder=piece.folder,
        frames=piece.length,
        digest=digest,
    )


def leave_folder(job: Job, index: int, attempt: int, ending: str = "") -> str:
    """A folder of an attempt that came to nothing, or is at work."""
    folder = piece_folder(EpisodeRequest(NAME, "room", index, attempt=attempt)) + ending
    (job.output / PIECES / folder / "videos").mkdir(parents=True)
    return folder


def invoke(command: object, *args: str | Path) -> Result:
    return CliRunner().invoke(command, [str(arg) for arg in args], catch_exceptions=True)  # type: ignore[arg-type]


HALF = {
    "ok": False,
    "faults": [],
    "missing": "2 of 4 episodes committed",
    "note": "",
    "warnings": [],
    "environments": [{"hash": "", "packages": {}, "episodes": [[0, 1]]}],
}
"""The findings of verify with half of a job, whose pieces say nothing of their environment."""


def facts(*args: str | Path) -> dict[str, object]:
    found: dict[str, object] = orjson.loads(invoke(verify, *args, "--json").stdout)
    return found


@pytest.fixture
def embedded(job: Job) -> Job:
    """An output with its own ledger and two committed pieces."""
    path = job.output / ".nimbusd/ledger.sqlite"
    with open_ledger(path, job) as ledger:
        remember_job(job.output, job, path, ledger.identity(), 1)
        ledger.apply([commit(store(job, index), index) for index in range(2)])
    return job


@pytest.fixture
def clustered(job: Job, tmp_path: Path) -> Job:
    """An output whose ledger is a master's."""
    with open_ledger(tmp_path / "master.sqlite", job) as ledger:
        remember_job(job.output, job, ledger.path, ledger.identity(), 1)
        ledger.apply([commit(store(job, index), index) for index in range(2)])
    return job


# --- owners ---


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
async def test_an_output_that_is_away_when_its_master_starts_is_not_made_anew(
    clustered: Job, tmp_path: Path, left: str
) -> None:
    output = clustered.output
    output.rename(tmp_path / "elsewhere")
    if left != "nothing":
        output.mkdir()  # where a disk is not mounted, say
    async with LedgerThread.opened(tmp_path / "master.sqlite") as ledger:
        outputs = Outputs(ledger, lambda fact: None)
        with pytest.raises(OutputGone, match=r"was removed or moved away.*nimbusctl output move"):
            await outputs.take(clustered)
        assert not output.exists() or not list(output.iterdir())
        if output.exists():
            output.rmdir()
        (tmp_path / "elsewhere").rename(output)
        adoption = await outputs.take(clustered)
        assert adoption.missing == []
        outputs.close()


def test_an_output_is_claimed_by_one_at_a_time(job: Job) -> None:
    with claim_output(job.output), pytest.raises(OutputBusy, match="in use by another run"), claim_output(job.output):
        pass
    with claim_output(job.output):
        pass


# --- what an output remembers ---


def test_an_output_knows_its_job_and_where_the_ledger_is(clustered: Job, tmp_path: Path) -> None:
    assert recall_job(clustered.output) == clustered
    place = ledger_place(clustered.output)
    assert place.path == tmp_path / "master.sqlite"
    assert place.here


def test_an_output_with_its_own_ledger_needs_no_place(embedded: Job) -> None:
    place = ledger_place(embedded.output)
    assert place.path == embedded.output / ".nimbusd/ledger.sqlite"
    assert place.here


def test_a_damaged_description_is_told_with_its_path(job: Job) -> None:
    path = job.output / ".nimbusd/job.json"
    with pytest.raises(LedgerError, match="holds no job"):
        recall_job(job.output)
    for content in ("{", "[]", '{"name": "job"}'):
        path.write_text(content)
        with pytest.raises(LedgerError, match=f"{path} is damaged"):
            recall_job(job.output)


# --- commands ---


@pytest.mark.parametrize("kind", ["embedded", "clustered"])
def test_what_is_committed_is_published_and_verified(kind: str, request: pytest.FixtureRequest) -> None:
    job: Job = request.getfixturevalue(kind)
    store(job, 2)  # never committed
    result = invoke(publish, job.output)
    assert result.exit_code == 0, result.output
    assert "published 2 episodes" in result.output
    assert facts(job.output) == HALF
    (job.output / PIECES / piece_folder(EpisodeRequest(NAME, "room", 1)) / "manifest.json").unlink()
    result = invoke(verify, job.output)
    assert result.exit_code == 1
    assert "no readable manifest" in result.output


def test_where_the_ledger_is_on_another_machine_pieces_are_checked_by_themselves(
    clustered: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert invoke(publish, clustered.output).exit_code == 0
    monkeypatch.setattr("nimbusd.master.output.folder.socket.gethostname", lambda: "elsewhere")
    for path in tmp_path.glob("master.sqlite*"):
        path.rename(path.with_name(f"far-{path.name}"))
    found = facts(clustered.output)
    assert found["ok"] is True
    assert f"{tmp_path / 'master.sqlite'} on " in str(found["note"])
    result = invoke(publish, clustered.output)
    assert isinstance(result.exception, NimbusError)
    assert f"is {tmp_path / 'master.sqlite'} on " in str(result.exception)
    piece = clustered.output / PIECES / piece_folder(EpisodeRequest(NAME, "room", 0))
    video = next(path for path in piece.rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[:-1] + b"?")
    assert "differs from its SHA-256" in str(facts(clustered.output)["faults"])


def test_a_dataset_alone_is_verified_without_a_ledger(embedded: Job) -> None:
    assert invoke(publish, embedded.output).exit_code == 0
    assert facts((embedded.output / "dataset").resolve())["ok"] is True


def test_pieces_without_any_ledger_are_an_error(job: Job) -> None:
    result = invoke(verify, job.output)
    assert isinstance(result.exception, LedgerError)
    assert "no job" in str(result.exception)


def test_a_ledger_of_an_older_nimbusd_is_converted_by_publish(embedded: Job) -> None:
    path = embedded.output / ".nimbusd/ledger.sqlite"
    with Ledger.read(path) as ledger:
        rows = list(ledger.committed(NAME))
    path.unlink()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    about = [("schema", "1"), ("job", NAME), ("fingerprint", embedded.fingerprint())]
    db.executemany("INSERT INTO about VALUES (?, ?)", about)
    db.execute(
        "CREATE TABLE episode (scene, number, state, attempt, losses, worker, stage, reason, detail, evidence, "
        "folder, frames, size_bytes, digest, PRIMARY KEY (scene, number)) WITHOUT ROWID"
    )
    db.executemany(
        "INSERT INTO episode VALUES ('room', ?, 'committed', 1, 0, '', '', '', '', '', ?, ?, ?, ?)",
        [(row.key.index, row.folder, row.frames, row.size_bytes, row.digest) for row in rows],
    )
    db.commit()
    db.close()
    result = invoke(publish, embedded.output)
    assert result.exit_code == 0, result.output
    assert facts(embedded.output) == HALF


def test_a_ledger_is_here_by_its_identity_whatever_the_host_is_called(
    clustered: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("nimbusd.master.output.folder.socket.gethostname", lambda: "renamed")
    assert ledger_place(clustered.output).here
    for path in tmp_path.glob("master.sqlite*"):
        path.unlink()
    open_ledger(tmp_path / "master.sqlite", clustered).close()
    assert not ledger_place(clustered.output).here


def test_a_ledger_that_is_gone_is_told_with_the_ways_out_and_none_is_made_in_its_place(embedded: Job) -> None:
    path = embedded.output / ".nimbusd/ledger.sqlite"
    path.unlink()
    for command in (publish, repair):
        result = invoke(command, embedded.output)
        assert f"nimbusctl output rebuild {embedded.output}" in str(result.exception)
    assert not path.exists()


def test_what_is_repaired_is_told_in_words_and_to_programs(embedded: Job) -> None:
    assert "no committed episode is damaged or gone" in invoke(repair, embedded.output).stdout
    dry = invoke(repair, embedded.output, "room/1", "room/1", "--dry-run")
    assert dry.stdout == "1 episode would be made again\n"
    assert orjson.loads(invoke(repair, embedded.output, "room/1", "--dry-run", "--json").stdout) == {
        "episodes": ["room/1"]
    }
    assert orjson.loads(invoke(repair, embedded.output, "--json").stdout) == {"episodes": []}
    assert "the nearest are: job/room/1" in invoke(repair, embedded.output, "rom/1").output


def test_an_output_is_moved_once_however_often_that_is_said(embedded: Job, tmp_path: Path) -> None:
    there = tmp_path / "there"
    for _ in range(2):
        moved = invoke(output, "move", f"{embedded.output}/", there)
        assert moved.exit_code == 0, moved.output
        assert f"--output {there}" in moved.output
    assert "exists. Name the output folder" in str(invoke(output, "move", tmp_path / "a", tmp_path / "b").exception)
    assert "Did you mean owner?" in invoke(output, "owne", there).output


def test_whoever_still_looks_at_an_output_that_was_let_go_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / PIECES).mkdir()
    with claim_output(tmp_path) as claim:
        assert claim.trouble() == ""
    assert claim.trouble() == ""
    (tmp_path / PIECES).rmdir()
    assert "was replaced by another folder" in claim.trouble()


def test_a_place_says_whether_it_can_be_read_here(tmp_path: Path) -> None:
    assert not LedgerPlace("no-such-host", tmp_path).here
    assert str(LedgerPlace("big", Path("/var/lib/nimbusd/ledger.sqlite"))) == "/var/lib/nimbusd/ledger.sqlite on big"


# --- backups ---


def test_a_torn_backup_changes_nothing_where_it_is_restored(embedded: Job, tmp_path: Path) -> None:
    backup = tmp_path / "backup.tar.gz"
    make_backup(embedded.output, backup)
    whole = backup.read_bytes()
    ledger = embedded.output / ".nimbusd/ledger.sqlite"
    before = ledger.read_bytes()
    for torn in (whole[: len(whole) // 2], whole[:20], b"no archive", whole[:200] + bytes(100) + whole[300:]):
        backup.write_bytes(torn)
        with pytest.raises(BackupError):
            restore(backup, embedded.output, replace=True)
        assert ledger.read_bytes() == before
    backup.write_bytes(whole)
    restore(backup, embedded.output, replace=True)
    (kept,) = ledger.parent.glob("ledger.sqlite.replaced-*")
    with Ledger.read(kept) as old, Ledger.read(ledger) as new:
        assert list(old.committed(NAME)) == list(new.committed(NAME))


# --- taking over what other settings made ---


def test_pieces_of_other_settings_are_taken_over_where_seed_and_versions_are_the_same(job: Job) -> None:
    """The records of these pieces say seed 3 and component versions, and no fingerprint of this job."""
    piece = store(job, 0)
    stages: dict[Stage, StageSpec] = {"plan": StageSpec("tests.support.toy:Toy", "1.0.0", {})}
    same = dataclasses.replace(job, stages=stages)
    assert not is_of_job(same, job.output, piece, anyway=False)
    assert is_of_job(same, job.output, piece, anyway=True)
    assert not is_of_job(dataclasses.replace(same, seed=4), job.output, piece, anyway=True)
    newer: dict[Stage, StageSpec] = {"plan": StageSpec("tests.support.toy:Toy", "2.0.0", {})}
    assert not is_of_job(dataclasses.replace(same, stages=newer), job.output, piece, anyway=True)

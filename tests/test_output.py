"""Output folders: what is swept, what stays, and what `publish` and `verify` say with the ledger here or elsewhere."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import orjson
import pytest
import yaml
from click.testing import CliRunner, Result

from nimbusd.cli.publish import publish, verify
from nimbusd.core.episodes import EpisodeKey, JobId, JobRow, LeaseId, LeaseOpened, NodeId, Record, Span, State
from nimbusd.job import Job, read_job
from nimbusd.master.ledger import Ledger, LedgerError
from nimbusd.master.manifest import manifest_digest
from nimbusd.master.output import (
    LedgerPlace,
    OutputBusy,
    claim_output,
    ledger_place,
    recall_job,
    remember_job,
    sweep_pieces,
)
from nimbusd.stages import EpisodeRequest, Piece
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.store.piece import PIECES, piece_folder
from tests.store_makers import make_writer, store_episode

NAME = JobId("job")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job whose pieces `tests.store_makers` makes: scene `room`, stored by NavWriter."""
    described = {
        "name": str(NAME),
        "seed": 3,
        "output": str(tmp_path / "out"),
        "scenes": [{"name": "room"}],
        "episodes_per_scene": 4,
        "pipeline": {
            "load": {"component": "tests.toy:ToyLoader"},
            "plan": {"component": "tests.toy:ToyPlanner"},
            "render": {"component": "tests.toy:ToyRenderer"},
            "store": {"component": "NavWriter", "args": {"codec": "h264"}},
        },
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(described))
    found = read_job(path)
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
    return Record(
        EpisodeKey(NAME, "room", index),
        State.COMMITTED,
        1,
        0,
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


def facts(*args: str | Path) -> dict[str, object]:
    found: dict[str, object] = orjson.loads(invoke(verify, *args, "--json").stdout)
    return found


@pytest.fixture
def embedded(job: Job) -> Job:
    """An output with its own ledger and two committed pieces."""
    remember_job(job.output, job)
    with open_ledger(job.output / ".nimbusd/ledger.sqlite", job) as ledger:
        ledger.apply([commit(store(job, index), index) for index in range(2)])
    return job


@pytest.fixture
def clustered(job: Job, tmp_path: Path) -> Job:
    """An output whose ledger is a master's."""
    remember_job(job.output, job, tmp_path / "master.sqlite")
    with open_ledger(tmp_path / "master.sqlite", job) as ledger:
        ledger.apply([commit(store(job, index), index) for index in range(2)])
    return job


# --- sweeping ---


def test_sweeping_removes_what_can_never_be_committed_and_nothing_else(job: Job, tmp_path: Path) -> None:
    piece = store(job, 0)
    live = [leave_folder(job, 1, 2), leave_folder(job, 2, 2, ".tmp"), leave_folder(job, 9, 1)]
    late = [leave_folder(job, 3, 4), leave_folder(job, 3, 4, ".tmp")]
    leave_folder(job, 0, 2)
    leave_folder(job, 0, 1, ".tmp")
    leave_folder(job, 1, 1)
    leave_folder(job, 3, 3)
    leave_folder(job, 4, 1)
    leave_folder(job, 5, 1, ".tmp")
    with open_ledger(tmp_path / "master.sqlite", job) as ledger:
        ledger.apply([commit(piece, 0), LeaseOpened(LeaseId(1), NAME, "room", 2, NodeId("n"), (Span(1, 3),))])
        ledger.apply([Record(EpisodeKey(NAME, "room", 3), State.PENDING, 4, 1)])
        ledger.apply([Record(EpisodeKey(NAME, "room", 4), State.FAILED, 1, 0)])
        assert sweep_pieces(job.output, NAME, ledger, {("room", 9, 1)}) == 6
        assert sweep_pieces(job.output, NAME, ledger, {("room", 9, 1)}) == 0
    left = {path.name for path in (job.output / PIECES).iterdir()}
    assert left == {piece.folder, *live, *late}


def test_an_output_without_pieces_has_nothing_to_sweep(job: Job, tmp_path: Path) -> None:
    with open_ledger(tmp_path / "master.sqlite", job) as ledger:
        assert sweep_pieces(tmp_path / "nowhere", NAME, ledger) == 0


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
    assert facts(job.output) == {"ok": True, "faults": [], "note": ""}
    (job.output / PIECES / piece_folder(EpisodeRequest(NAME, "room", 1)) / "manifest.json").unlink()
    result = invoke(verify, job.output)
    assert result.exit_code == 1
    assert "no readable manifest" in result.output


def test_where_the_ledger_is_on_another_machine_pieces_are_checked_by_themselves(
    clustered: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert invoke(publish, clustered.output).exit_code == 0
    monkeypatch.setattr("nimbusd.master.output.socket.gethostname", lambda: "elsewhere")
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
    assert facts(embedded.output) == {"ok": True, "faults": [], "note": ""}


def test_a_place_says_whether_it_can_be_read_here(tmp_path: Path) -> None:
    assert not LedgerPlace("no-such-host", tmp_path).here
    assert str(LedgerPlace("big", Path("/var/lib/nimbusd/ledger.sqlite"))) == "/var/lib/nimbusd/ledger.sqlite on big"

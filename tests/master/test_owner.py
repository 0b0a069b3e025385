"""The right to go on in an output folder, and no committed byte lost: every way to come to one that is used.

A real master over a real ledger, without nodes: pieces are stored and committed by hand, as compute workers store them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nimbusd.core.ids import EpisodeKey, JobId, LeaseId, NodeId, Span
from nimbusd.core.records import JobRow, LeaseOpened, Record, State
from nimbusd.job import Job, read_job
from nimbusd.master.backup import make_backup, restore
from nimbusd.master.ledger.ledger import Ledger, LedgerError
from nimbusd.master.ledger.reads import ATTEMPTS_APART
from nimbusd.master.ledger.thread import LedgerThread
from nimbusd.master.master import Master
from nimbusd.master.output.folder import claim_output, ledger_path, remember_job
from nimbusd.master.output.outputs import first_attempt_at
from nimbusd.master.output.owner import OutputTaken, read_owner
from nimbusd.master.requests import Requests
from nimbusd.stages import EpisodeRequest, Piece
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.store.piece import PIECES, draft_of, draft_piece, manifest_digest, piece_folder
from nimbusd.stages.store.trash import trash_of
from nimbusd.transport.messages import control as c
from tests.support.records import record_of
from tests.support.toy_jobs import scenes, write_toy_job

NAME = JobId("job")
WANTED = 6
"""More than is ever there, so that no job ends and nothing is published."""


def make_job(folder: Path, **changes: Any) -> Job:
    values = {"name": str(NAME), "scenes": scenes("room"), "episodes_per_scene": WANTED, **changes}
    return read_job(write_toy_job(folder / "job.yaml", **values))


def store(job: Job, index: int, attempt: int = 1, fingerprint: str | None = None) -> Piece:
    request = EpisodeRequest(
        job.name, "room", index, 0, attempt, job.fingerprint() if fingerprint is None else fingerprint
    )
    job.output.mkdir(exist_ok=True)
    with draft_piece(job.output, request) as draft:
        draft.add("state.txt", f"episode {index}".encode())
        return draft.commit(1)


def row(job: Job) -> JobRow:
    return JobRow(NAME, job.fingerprint(), job.to_dict(), "ada", 0, 0, True, "", 1.0)


def record(piece: Piece, index: int, attempt: int = 1) -> Record:
    size_bytes = sum(file.size_bytes for file in piece.files)
    key = EpisodeKey(NAME, "room", index)
    digest = manifest_digest(piece)
    return record_of(
        key, State.COMMITTED, attempt, 0, "n", folder=piece.folder, frames=1, size_bytes=size_bytes, digest=digest
    )


def work(job: Job, ledger: Path, indexes: range) -> None:
    """Do as a run or a master does: claims the output, and commits episodes there."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    job.output.joinpath(PIECES).mkdir(parents=True, exist_ok=True)
    with claim_output(job.output), Ledger.open(ledger) as opened:
        opened.put_job(row(job))
        remember_job(job.output, job, ledger, opened.identity(), 1)
        opened.apply([record(store(job, index), index) for index in indexes])


def committed_bytes(job: Job, count: int) -> dict[str, str]:
    """SHA-256 of every file of the first `count` episodes, wherever their pieces are."""
    found = {}
    for index in range(count):
        for path in sorted(job.output.rglob(f".pieces/{piece_folder(EpisodeRequest(job.name, 'room', index))}/*")):
            found[f"{index}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


async def come(job: Job, ledger: Path, *, adopt: bool = False) -> set[int]:
    """Submit the job to a master with this ledger. Returns the episodes that are committed then."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    async with LedgerThread.opened(ledger) as thread:
        master = Master(thread, lambda node, message: None)
        serving = asyncio.create_task(master.run())
        try:
            await master.ready.wait()
            await master.intake.submit(row(job), job, adopt=adopt)
            done = {piece.key.index for piece in await thread.call(lambda read: list(read.committed(NAME)))}
            assert master.scheduler.tasks.jobs[NAME].scenes["room"].count.committed == len(done)
            return done
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def first_attempt_of(job: Job, ledger: Path) -> int:
    """The first attempt at an episode, after the job came to a master with this ledger."""
    await come(job, ledger, adopt=True)
    mark = read_owner(job.output)
    assert mark is not None
    with Ledger.read(ledger) as read:
        assert first_attempt_at(job, read) == mark.first_attempt
    return mark.first_attempt


@dataclass(frozen=True)
class Place:
    """An output with four committed episodes, and the ledger that committed them."""

    job: Job
    ledger: Path
    folder: Path


@pytest.fixture(params=["run", "submit"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Made by a run (the ledger lies in the output) or by a master."""
    job = make_job(tmp_path)
    ledger = ledger_path(job.output) if request.param == "run" else tmp_path / "master" / "ledger.sqlite"
    work(job, ledger, range(2))
    (tmp_path / "older").mkdir()
    for path in ledger.parent.glob("ledger.sqlite*"):
        shutil.copy(path, tmp_path / "older")
    make_backup(ledger.parent if request.param == "submit" else job.output, tmp_path / "backup.tar.gz")
    work(job, ledger, range(2, 4))
    return Place(job, ledger, tmp_path)


def killed_in_between(place: Place) -> None:
    """One more episode is whole but was not committed, and another was being written."""
    with Ledger.open(place.ledger) as ledger:
        ledger.apply([LeaseOpened(LeaseId(9), NAME, "room", 1, NodeId("n"), (Span(4, 6),))])
    store(place.job, 4)
    draft_of(place.job.output / PIECES / piece_folder(EpisodeRequest(NAME, "room", 5))).mkdir()


def lose(place: Place) -> Path:
    for path in place.ledger.parent.glob("ledger.sqlite*"):
        path.unlink()
    return place.ledger


def go_back(place: Place) -> Path:
    lose(place)
    for path in (place.folder / "older").iterdir():
        shutil.copy(path, place.ledger.parent)
    return place.ledger


def restore_it(place: Place) -> Path:
    lose(place)
    restore(
        place.folder / "backup.tar.gz", place.job.output if ".nimbusd" in str(place.ledger) else place.ledger.parent
    )
    return place.ledger


LEDGERS: dict[str, Callable[[Place], Path]] = {
    "same ledger": lambda place: place.ledger,
    "run after all": lambda place: ledger_path(place.job.output),
    "another master": lambda place: place.folder / "other" / "ledger.sqlite",
    "lost ledger": lose,
    "older ledger, copied by hand": go_back,
    "restored backup": restore_it,
}


@pytest.mark.parametrize("killed", [False, True], ids=["finished", "killed in between"])
@pytest.mark.parametrize("ledger", LEDGERS)
async def test_the_same_job_goes_on_with_all_that_lies_there(there: Place, ledger: str, killed: bool) -> None:
    if killed:
        killed_in_between(there)
    before = committed_bytes(there.job, 4)
    path = LEDGERS[ledger](there)
    if "copied by hand" in ledger:
        with pytest.raises(OutputTaken, match=r"newer state of this ledger.*--adopt"):
            await come(there.job, path)
        with Ledger.read(path) as refused:
            assert {piece.key.index for piece in refused.committed(NAME)} == {0, 1}
        done = await come(there.job, path, adopt=True)
    else:
        done = await come(there.job, path)
    assert done == set(range(5 if killed else 4))
    assert committed_bytes(there.job, 4) == before
    assert not trash_of(there.job.output).exists()
    assert await come(there.job, path) == done  # and again, by its own ledger


@pytest.mark.parametrize("ledger", LEDGERS)
async def test_no_attempt_has_the_number_of_one_that_another_ledger_may_have_leased(there: Place, ledger: str) -> None:
    """Else an old node that is told to drop its piece would throw away the new one, which has the same name."""
    path = LEDGERS[ledger](there)
    is_ours = path == there.ledger and ledger in ("same ledger", "run after all")
    for _ in range(2):  # and once it is its own, that is so for good
        assert await first_attempt_of(there.job, path) == (1 if is_ours else 1 + ATTEMPTS_APART)


async def test_a_backup_does_not_know_what_was_leased_after_it_was_made(there: Place) -> None:
    """Though it was made, and the ledger worked on, in one opening."""
    place = there.job.output if ".nimbusd" in str(there.ledger) else there.ledger.parent
    make_backup(place, there.folder / "latest.tar.gz")
    restore(there.folder / "latest.tar.gz", place, replace=True)
    for _ in range(2):
        assert await first_attempt_of(there.job, there.ledger) == 1 + ATTEMPTS_APART


async def test_attempts_at_a_forgotten_job_are_not_numbered_anew(there: Place) -> None:
    with Ledger.open(there.ledger) as ledger:
        ledger.forget(NAME)
    assert await first_attempt_of(there.job, there.ledger) == 1 + ATTEMPTS_APART


@pytest.mark.parametrize("ledger", ["same ledger", "run after all", "another master", "lost ledger"])
@pytest.mark.parametrize("adopt", [False, True])
async def test_another_job_is_refused_and_leaves_nothing_in_its_ledger(there: Place, ledger: str, adopt: bool) -> None:
    killed_in_between(there)
    before = committed_bytes(there.job, 5)
    path = LEDGERS[ledger](there)
    other = dataclasses.replace(there.job, name="other")
    async with LedgerThread.opened(path) if path.parent.is_dir() else LedgerThread.opened(there.folder / "l") as thread:
        master = Master(thread, lambda node, message: None)
        serving = asyncio.create_task(master.run())
        await master.ready.wait()
        with pytest.raises(OutputTaken, match=r"belongs to job 'job'.*nimbusctl output move"):
            await master.intake.submit(dataclasses.replace(row(other), job=JobId("other")), other, adopt=adopt)
        assert await thread.call(lambda read: read.job(JobId("other"))) is None
        assert not master.open
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert committed_bytes(there.job, 5) == before


async def test_other_settings_are_refused_and_taken_over_only_if_asked(there: Place) -> None:
    """The toy writer keeps no record of seeds and versions, so that nothing can vouch for its pieces."""
    changed = make_job(there.folder, seed=4)
    before = committed_bytes(there.job, 4)
    for adopt in (False, True):
        with pytest.raises(NimbusError, match="other scenes, seed or pipeline"):
            await come(changed, there.folder / "new" / "ledger.sqlite", adopt=adopt)
    with pytest.raises(LedgerError, match="there is another job 'job'"):
        await come(changed, there.ledger)
    assert committed_bytes(there.job, 4) == before


async def test_a_moved_folder_goes_on_where_it_is(there: Place) -> None:
    before = committed_bytes(there.job, 4)
    moved = dataclasses.replace(there.job, output=there.folder / "moved")
    there.job.output.rename(moved.output)
    path = ledger_path(moved.output) if there.ledger == ledger_path(there.job.output) else there.ledger
    assert await come(moved, path) == set(range(4))
    assert committed_bytes(moved, 4) == before


async def test_a_copied_folder_is_not_taken_for_a_moved_one(there: Place) -> None:
    if there.ledger == ledger_path(there.job.output):
        return  # a run's ledger is copied along: two outputs from then on
    copied = dataclasses.replace(there.job, output=there.folder / "copied")
    shutil.copytree(there.job.output, copied.output)
    with pytest.raises(LedgerError, match="has its pieces in"):
        await come(copied, there.ledger)


# --- single pieces ---


@pytest.fixture
def place(tmp_path: Path) -> Place:
    job = make_job(tmp_path)
    ledger = tmp_path / "master" / "ledger.sqlite"
    work(job, ledger, range(2))
    return Place(job, ledger, tmp_path)


def thrown_away(job: Job) -> list[str]:
    trash = trash_of(job.output)
    return sorted(path.name.partition(".")[2] for path in trash.iterdir()) if trash.exists() else []


async def test_a_torn_piece_goes_to_the_trash_and_its_attempt_is_never_leased_again(place: Place) -> None:
    torn = store(place.job, 2, attempt=7)
    path = place.job.output / PIECES / torn.folder / "state.txt"
    path.chmod(0o644)
    path.write_text("something else")
    assert await come(place.job, place.ledger) == {0, 1}
    assert thrown_away(place.job) == [torn.folder]
    with Ledger.read(place.ledger) as ledger:
        standing = ledger.standing(EpisodeKey(NAME, "room", 2))
    assert standing is not None
    assert (standing.state, standing.attempt) == (State.PENDING, 7)


async def test_of_two_whole_pieces_of_an_episode_the_later_is_adopted(place: Place) -> None:
    early, late, second = store(place.job, 2), store(place.job, 2, attempt=3), store(place.job, 1, attempt=2)
    assert await come(place.job, place.ledger) == {0, 1, 2}
    with Ledger.read(place.ledger) as ledger:
        piece = ledger.committed_piece(EpisodeKey(NAME, "room", 2))
    assert piece is not None
    assert piece.folder == late.folder
    assert thrown_away(place.job) == sorted([early.folder, second.folder])


async def test_folders_that_are_no_attempts_of_the_job_stay(place: Place) -> None:
    strange = ["notes", "other__room__000000.1", "job__hall__000000.1", "job__room__000000.0x", "job__room__1.1.tmp"]
    for name in strange:
        (place.job.output / PIECES / name).mkdir()
    assert await come(place.job, place.ledger) == {0, 1}
    assert all((place.job.output / PIECES / name).is_dir() for name in strange)


async def test_a_committed_piece_that_is_gone_is_replaced_by_another_whole_one(place: Place) -> None:
    shutil.rmtree(place.job.output / PIECES / piece_folder(EpisodeRequest(NAME, "room", 1)))
    store(place.job, 1, attempt=4)
    assert await come(place.job, place.ledger) == {0, 1}
    with Ledger.read(place.ledger) as ledger:
        piece = ledger.committed_piece(EpisodeKey(NAME, "room", 1))
    assert piece is not None
    assert piece.attempt == 4


async def test_pieces_without_a_fingerprint_are_those_of_whose_folder_it_is(place: Place) -> None:
    """Pieces of an older nimbusd, by a writer that keeps no record."""
    store(place.job, 2, fingerprint="")
    assert await come(place.job, place.ledger) == {0, 1, 2}


async def test_a_folder_in_which_nothing_was_made_is_free(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    work(job, tmp_path / "one.sqlite", range(0))
    other = dataclasses.replace(job, seed=9)
    assert await come(other, tmp_path / "two.sqlite") == set()


# --- jobs that cannot be taken up ---


ODD: dict[str, dict[str, Any]] = {
    "nothing": {"scenes": None},
    "text for a number": {"episodes_per_scene": "3"},
    "a scene's name too long for a folder": {"scenes": [["x" * 300, {"name": "x" * 300}]]},
    "NUL in a name": {"scenes": [["a\0b", {"name": "a\0b"}]]},
    "a seed beyond 64 bits": {"seed": 2**64},
    "an output that is no path": {"output": "a\0b"},
    "an output within a file": {"output": "/proc/version/out"},
    "no stages": {"stages": {}},
}


async def test_jobs_that_cannot_be_taken_up_are_held_up_and_the_others_go_on(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    path = tmp_path / "master" / "ledger.sqlite"
    work(job, path, range(2))
    with Ledger.open(path) as ledger:
        for number, odd in enumerate(ODD.values()):
            spec = {**job.to_dict(), "name": f"odd{number}", "output": str(tmp_path / f"odd{number}"), **odd}
            ledger.put_job(dataclasses.replace(row(job), job=JobId(f"odd{number}"), fingerprint=str(number), spec=spec))
    async with LedgerThread.opened(path) as thread:
        master = Master(thread, lambda node, message: None)
        serving = asyncio.create_task(master.run())
        await master.ready.wait()
        await master.resume()
        assert list(master.open) == [NAME]
        requests = Requests(master, dict)
        listed = await requests.answer(c.Jobs(1))
        assert isinstance(listed, c.JobList)
        assert {job.job: job.waiting for job in listed.jobs if job.job != NAME} == {
            f"odd{number}": "held_up" for number in range(len(ODD))
        }
        assert all(job.why for job in listed.jobs if job.job != NAME)
        for number in range(len(ODD)):
            assert isinstance(await requests.answer(c.JobDetail(1, f"odd{number}")), c.JobReport)
            assert await requests.answer(c.Cancel(2, f"odd{number}")) != c.Done(
                2, 0, f"job odd{number} is over already"
            )
            assert isinstance(await requests.answer(c.Forget(3, f"odd{number}")), c.Done)
        assert [row.job for row in await thread.call(lambda read: read.jobs())] == [NAME]
        refused = await requests.answer(c.Forget(4, NAME))
        assert isinstance(refused, c.Refused)
        assert "nimbusctl cancel job" in refused.error
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

"""From what was seen of a component's processes to the verdict on each line of the contract. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nimbusd.core.words import counted, listed
from nimbusd.testing.report import LINES, WRITER_LINES, ContractReport, ContractVerdict, Finding
from nimbusd.testing.stand import METHODS, WORKFLOW
from nimbusd.testing.trial import Trial, TrialCall

SILENCE_FRACTION = 1 / 4
"""Of the limit that a component may be silent for: the fixtures are small, and a user's scenes are not."""
GROWTH_BYTES = 32 << 20
_WARM_FRACTION = 1 / 4
"""Of the calls: caches fill in these."""
_STILL_GROWING = 1 / 4
"""Of the growth that comes in the second half where memory grows on and on; where caches fill up it is less."""
_LEAKS_PER_CALL = 1 / 3
_EVIDENCE_CHARACTERS = 4000
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class KilledCall:
    """A process that was killed in a call. after_s: how far into it. torn: what is not whole in its output."""

    trial: Trial
    after_s: float
    torn: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trials:
    """All that was tried.

    long: many calls, looked at. twin: the first of them again, in a process of its own. turned: the same in the
    reverse order. kills: processes killed in their first call. after_kills: a whole one in the same output, and what
    is wrong there afterwards (torn). The later ones are None where an earlier one ended before its time.
    """

    component: str
    long: Trial
    twin: Trial | None = None
    turned: Trial | None = None
    kills: tuple[KilledCall, ...] = ()
    after_kills: Trial | None = None
    torn: tuple[str, ...] = ()
    beat_timeout_s: float = 120.0


def judge(trials: Trials) -> ContractReport:
    """The findings, in the order of LINES."""
    found = {finding.line: finding for finding in _findings(trials)}
    stage = trials.long.stage
    lines = [line for line in LINES if stage == "store" or line not in WRITER_LINES]
    failed = next((finding.line for finding in found.values() if finding.verdict is not ContractVerdict.HOLDS), "")
    missing = "not asked for"
    if failed:
        missing = f"not tried, since `{failed}` {'fails' if _is_failed(found[failed]) else 'was not'}"
    rows = [found.get(line) or Finding(line, ContractVerdict.UNTRIED, missing) for line in lines]
    return ContractReport(trials.component, stage, tuple(rows))


def _is_failed(finding: Finding) -> bool:
    return finding.verdict is ContractVerdict.FAILS


def _findings(trials: Trials) -> Iterator[Finding]:
    long = trials.long
    if not long.stage:
        yield _fails("class", long.error, long.evidence)
        return
    yield _holds("class", _what_it_is(long.stage))
    if long.declared is None:
        yield _fails("arguments", long.error or long.unfit, long.evidence)
        return
    yield _by_faults("arguments", long.declared, "declared and fitting")
    if long.unfit and not long.calls:
        yield Finding("start", ContractVerdict.UNTRIED, f"it cannot run here: {long.unfit}")
        return
    if long.opened_s is None:
        yield _fails("start", long.error, long.evidence)
        return
    yield _holds("start", f"opened in {long.opened_s:.2f} s")
    yield from _of_calls(trials)
    if trials.twin is None or trials.turned is None:
        return
    yield from _of_twins(long, trials.twin, trials.turned)
    if trials.after_kills is not None:
        yield _of_kills(trials)


def _what_it_is(stage: str) -> str:
    return "a Workflow" if stage == WORKFLOW else f"a component of the stage {stage!r}"


def _of_calls(trials: Trials) -> Iterator[Finding]:
    """The lines that the long process decides."""
    long = trials.long
    calls = long.calls
    method = "its stages" if long.stage == WORKFLOW else METHODS[long.stage][-1 if long.stage == "render" else 0]
    broken = ""
    if not long.closing:
        where = f"call {len(calls) + 1} of {method}"
        broken = f"{where if long.calling else f'before {where}'}: {long.error or long.unfit}"
    ended_itself = long.silent or long.error.startswith("its process ")
    faults = list(dict.fromkeys(fault for call in calls for fault in call.faults))
    if broken and not ended_itself:
        yield _fails("results", broken, long.evidence)
    elif faults:
        yield _fails("results", "; ".join(faults))
    elif calls and all(call.failed for call in calls):
        reasons = listed(sorted({call.failed for call in calls}))
        text = f"all {len(calls)} calls raised PlanningFailed ({reasons}), so that there is nothing to look at: "
        yield _fails("results", text + "give arguments and a scene in which a plan exists")
    elif calls:
        failed = sum(1 for call in calls if call.failed)
        plans = f", {counted(failed, 'plan')} failed, which is a result" if failed else ""
        yield _holds("results", f"{counted(len(calls), 'call')} of {method}{plans}")
    if changed := [call.index for call in calls if call.changed]:
        yield _fails("inputs", f"{method} changed what it was given, first for episode {changed[0]}: make copies")
    elif calls and not broken:
        yield _holds("inputs", "unchanged")
    if ended_itself:
        yield _fails("time", broken, long.evidence)
    elif calls:
        seconds = [call.seconds for call in calls]
        typical = f"{_s(statistics.median(seconds))} each, the first {_s(seconds[0])}, at most {_s(max(seconds))}"
        yield _holds("time", typical)
    yield from _of_beats(trials, broken)
    if broken:
        return
    yield _of_growth(calls)
    yield _of_end(long)
    if long.attempts is not None:
        yield _by_faults("attempts", long.attempts, "attempt 2 of an episode lies beside attempt 1")


def _of_beats(trials: Trials, broken: str) -> Iterator[Finding]:
    long, limit_s = trials.long, trials.beat_timeout_s
    if long.silent:
        yield _fails("beats", f"{broken}; call self.beat() at every frame, and at least every second of work")
        return
    if not long.calls:
        return
    worst = max(long.calls, key=lambda call: call.silence_s)
    said = f"silent for at most {_s(worst.silence_s)} ({counted(worst.beats, 'beat')} in {_s(worst.seconds)})"
    if worst.silence_s > SILENCE_FRACTION * limit_s:
        text = f"{said}, where a worker is killed after {limit_s:g} s and these inputs are small: "
        yield _fails("beats", text + "call self.beat() at every frame, and at least every second of work")
    elif not broken:
        yield _holds("beats", said)


def _of_growth(calls: Sequence[TrialCall]) -> Finding:
    warm = max(1, int(_WARM_FRACTION * len(calls)))
    first, last, middle = calls[warm - 1], calls[-1], calls[(warm - 1 + len(calls)) // 2]
    later = len(calls) - warm
    grown_bytes = last.memory_bytes - first.memory_bytes
    kinds = ("descriptors", "threads", "processes")
    more = {kind: getattr(last, kind) - getattr(first, kind) for kind in kinds}
    said = f"memory {grown_bytes / _MIB:+.1f} MiB, " + ", ".join(f"{kind} {more[kind]:+d}" for kind in kinds)
    said += f" in the last {counted(later, 'call')}"
    goes_on = last.memory_bytes - middle.memory_bytes > _STILL_GROWING * grown_bytes
    leaks = [kind for kind in kinds if more[kind] > 0 and more[kind] >= _LEAKS_PER_CALL * later]
    if grown_bytes > GROWTH_BYTES and goes_on:
        leaks.insert(0, "memory")
    if leaks:
        return _fails("growth", f"{' and '.join(leaks)} grow from call to call: {said}")
    return _holds("growth", said)


def _of_end(trial: Trial) -> Finding:
    left = [f"thread {name!r} goes on" for name in trial.threads_left]
    left += [f"{name} goes on" for name in trial.alive]
    left += [f"the temporary file {name} was left" for name in trial.files]
    if trial.error:
        left.append(trial.error)
    return _by_faults("end", left, "closed, and nothing was left")


def _of_twins(long: Trial, twin: Trial, turned: Trial) -> Iterator[Finding]:
    ours, theirs = ({call.index: call.digest for call in trial.calls} for trial in (long, twin))
    reverse = {call.index: call.digest for call in turned.calls}
    if differ := [index for index in theirs if ours.get(index) != theirs[index]]:
        text = f"episode {differ[0]} has other bytes in a second process: draw from the generator that is given alone, "
        yield _fails("same bytes", text + "not from time, ids, hashes of objects or global generators")
    elif broken := twin.error or twin.unfit:
        yield _fails("same bytes", f"a second process came to another end: {broken}", twin.evidence)
    else:
        yield _holds("same bytes", f"{counted(len(theirs), 'episode')} in two processes")
        if differ := [index for index in theirs if reverse.get(index) != theirs[index]]:
            text = f"episode {differ[0]} has other bytes where the episodes are made in the reverse order: "
            why = turned.error or "something is kept from one call to the next"
            yield _fails("order", text + why, turned.evidence)
        else:
            yield _holds("order", f"{counted(len(theirs), 'episode')} forwards and backwards")
    if long.published is not None and twin.closed:
        faults = [*long.published, *(twin.published or ())]
        if twin.dataset != long.dataset and not faults:
            faults.append("another process makes another dataset of the same pieces")
        yield _by_faults("publish", faults, "the same dataset twice, and in another process; all pieces whole")


def _of_kills(trials: Trials) -> Finding:
    again = trials.after_kills
    assert again is not None
    faults = [
        f"killed after {_s(kill.after_s)}: {fault}"
        for kill in trials.kills
        for fault in (*kill.torn, *(f"{name} goes on" for name in kill.trial.alive))
    ]
    want = next((call.digest for call in trials.long.calls if call.index == 0), "")
    if again.error or again.unfit:
        faults.append(f"a whole process after it: {again.error or again.unfit}")
    elif [call.digest for call in again.calls] != [want]:
        faults.append("the episode that was then made again has other bytes")
    faults += [f"after a whole process in the same output: {fault}" for fault in trials.torn]
    faults += [f"after a whole process: {name} goes on" for name in again.alive]
    moments = listed([_s(kill.after_s) for kill in trials.kills], most=10)
    killed = sum(1 for kill in trials.kills if kill.trial.killed)
    said = f"killed {counted(killed, 'time')} in a call, after {moments}; made again with the same bytes"
    return _by_faults("kill", faults, said)


def _by_faults(line: str, faults: Sequence[str], said: str) -> Finding:
    return _fails(line, "; ".join(dict.fromkeys(faults))) if faults else _holds(line, said)


def _holds(line: str, said: str) -> Finding:
    return Finding(line, ContractVerdict.HOLDS, said)


def _fails(line: str, said: str, evidence: str = "") -> Finding:
    text = said if not evidence else f"{said}\n{evidence[-_EVIDENCE_CHARACTERS:].rstrip()}"
    return Finding(line, ContractVerdict.FAILS, text)


def _s(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"

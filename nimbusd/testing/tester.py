"""`check_component`: try a component in processes of its own, and say which lines of the contract hold."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nimbusd.job.model import Limits
from nimbusd.testing.judge import KilledCall, Trials, judge
from nimbusd.testing.report import ContractReport
from nimbusd.testing.shapes import output_faults
from nimbusd.testing.trial import Trial, TrialRequest, run_trial

RUNS = 20
KILLS = 3
TWINS = 3


@dataclass(frozen=True, slots=True)
class TestPlan:
    """The extent of a check: how much to try, and how long to wait.

    runs: calls in one process. twins: the first of them that are made again in a second process, and in the reverse
    order in a third; 0 leaves these lines untried, and `kill`. kills: processes to kill in a call. seed: of the
    moments. beat_timeout_s, open_timeout_s: how long a component may be silent, and take to open; by default as in a
    job that says nothing.
    """

    __test__ = False  # pytest takes it for a test otherwise

    runs: int = RUNS
    twins: int = TWINS
    kills: int = KILLS
    seed: int = 0
    beat_timeout_s: float = Limits().beat_timeout_s
    open_timeout_s: float = Limits().open_timeout_s


def check_component(
    component: str,
    args: Mapping[str, Any] | None = None,
    *,
    scene: Mapping[str, Any] | None = None,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
    device: str = "auto",
    plan: TestPlan | None = None,
) -> ContractReport:
    """Try the component or workflow called `component`: a registered name, or `package.module:Class`.

    args: its arguments; of a workflow, its `workflow_args`. scene: for loaders and workflows, an entry of a job's
    `scenes` without its name; paths in it are absolute. beside: stage → {"component": …, "args": …}, components to
    take in place of the fixtures, for one that fits no others. device: for renderers.

    Nothing of the component runs in this process. Never raises for a component's faults: they are findings.
    """
    plan = plan or TestPlan()
    with tempfile.TemporaryDirectory(prefix="nimbusd-testing-", ignore_cleanup_errors=True) as name:
        return judge(_Tester(component, args or {}, scene or {}, beside or {}, device, plan, Path(name)).run())


@dataclass
class _Tester:
    component: str
    args: Mapping[str, Any]
    scene: Mapping[str, Any]
    beside: Mapping[str, Mapping[str, Any]]
    device: str
    plan: TestPlan
    folder: Path

    def run(self) -> Trials:
        runs = tuple(range(self.plan.runs))
        twins = runs[: self.plan.twins]
        long = self._trial("long", runs, look=True, publish=len(twins))
        trials = Trials(self.component, long, beat_timeout_s=self.plan.beat_timeout_s)
        if not long.closed or not twins:
            return trials
        twin = self._trial("twin", twins, publish=len(long.folders), folders=long.folders)
        turned = self._trial("turned", tuple(reversed(twins)))
        return self._killed(replace(trials, twin=twin, turned=turned), twin)

    def _killed(self, trials: Trials, twin: Trial) -> Trials:
        """KilledCall processes at moments spread over their first call, which takes as long as it took in `twin`."""
        if not twin.calls or not self.plan.kills:
            return trials
        rng = np.random.default_rng(self.plan.seed)
        kills = []
        for number in range(self.plan.kills):
            after_s = (number + rng.random()) / self.plan.kills * twin.calls[0].seconds
            trial = self._trial(f"kill{number}", (0,), output="killed", kill_after_s=after_s)
            whole = [fault for fault in output_faults(self.folder / "killed") if "draft" not in fault]
            kills.append(KilledCall(trial, after_s, tuple(whole)))
        again = self._trial("again", (0,), output="killed", look=True)
        return replace(trials, kills=tuple(kills), after_kills=again, torn=tuple(output_faults(self.folder / "killed")))

    def _trial(
        self,
        name: str,
        indexes: tuple[int, ...],
        *,
        output: str = "",
        look: bool = False,
        publish: int = 0,
        folders: tuple[str, ...] = (),
        kill_after_s: float | None = None,
    ) -> Trial:
        folder = self.folder / (output or f"{name}.output")
        folder.mkdir(exist_ok=True)
        request = TrialRequest(
            component=self.component,
            args=self.args,
            scene=self.scene,
            beside=self.beside,
            device=self.device,
            output=folder,
            indexes=indexes,
            look=look,
            publish=publish,
            folders=folders,
            stored_in=self.folder / "long.output",
        )
        return run_trial(
            request,
            self.folder / name,
            beat_timeout_s=self.plan.beat_timeout_s,
            open_timeout_s=self.plan.open_timeout_s,
            kill_after_s=kill_after_s,
        )

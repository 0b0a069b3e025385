"""The daemons' configuration: TOML files, checked, with every default in one place."""

from __future__ import annotations

import os
import platform
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nimbusd.core.nodes import DEAD_AFTER_S, HEARTBEAT_S
from nimbusd.stages.errors import NimbusError

PORT = 7600
SLOTS_PER_GPU = 2
"""While one renderer loads a scene or stores an episode, another one uses the GPU."""
SPARES = 1
MEMORY_SHARE = 0.9

M = TypeVar("M", bound="_Config")


class ConfigError(NimbusError):
    """A configuration file cannot be read, or says something that it may not."""


class _Config(BaseModel):
    """Unknown keys are errors; values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _state_folder(kind: str) -> Path:
    """Where systemd says, else the system's place for root and the user's for others."""
    if (given := os.environ.get("STATE_DIRECTORY")) is not None:
        return Path(given.partition(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/nimbusd") / kind
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "nimbusd" / kind


class MasterConfig(_Config):
    """`nimbusd master`. bind: ZeroMQ addresses. state: folder of the ledger, the keys and the allow-list.

    advertise: the address that join tokens name; None: this host's name. A node that has been silent for
    dead_after_s is given up. publish_every_s: at least so long between two publishings of a running job.
    """

    bind: tuple[str, ...] = (f"tcp://127.0.0.1:{PORT}",)
    state: Path = Field(default_factory=lambda: _state_folder("master"))
    advertise: str | None = None
    heartbeat_s: float = Field(default=HEARTBEAT_S, gt=0)
    dead_after_s: float = Field(default=DEAD_AFTER_S, gt=0)
    publish_every_s: float = Field(default=30.0, gt=0)


class WorkerConfig(_Config):
    """`nimbusd worker`. name: unique in the cluster.

    workers: CPU slots; None: one per core that no GPU slot needs, at most 8. gpus: which to use, as nvidia-smi counts;
    None: those of CUDA_VISIBLE_DEVICES, or all. slots_per_gpu: compute workers on each. spares: processes kept warm to
    take the place of a compute worker that is gone. memory_share: of the machine's memory, or of the control group's
    limit, that compute workers may take together.
    state: folder of the node's key and of what it learned when it joined.
    """

    master: str | None = None
    name: str = Field(default_factory=platform.node, min_length=1, max_length=100)
    workers: int | None = Field(default=None, ge=0, le=256)
    gpus: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    slots_per_gpu: int = Field(default=SLOTS_PER_GPU, ge=1, le=16)
    spares: int = Field(default=SPARES, ge=0, le=16)
    memory_share: float = Field(default=MEMORY_SHARE, gt=0, le=1)
    state: Path = Field(default_factory=lambda: _state_folder("worker"))


def read_config(model: type[M], path: Path | None, section: str, **given: Any) -> M:
    """The configuration of a TOML file's section; options that were given (not None) go before it.

    Raises ConfigError that names the file and the key.
    """
    values = _section(path, section) if path is not None else {}
    values.update({key: value for key, value in given.items() if value is not None})
    try:
        return model.model_validate(values)
    except ValidationError as error:
        where = f"{path} [{section}]" if path is not None else "the options"
        raise ConfigError("; ".join(_sentence(model, where, dict(problem)) for problem in error.errors())) from error


def _section(path: Path, section: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    strange = sorted(set(content) - {"master", "worker"})
    if strange:
        raise ConfigError(f"{path}: unknown section [{strange[0]}]; there are [master] and [worker]")
    return dict(content.get(section, {}))


def _sentence(model: type[_Config], where: str, problem: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(key, model.model_fields, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(model.model_fields)}"
        return f"{where}: unknown key {key!r}{hint}"
    return f"{where}: {key}: {problem['msg']}"

"""The daemons' configuration: TOML files, checked, with every default in one place."""

from __future__ import annotations

import os
import platform
import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from nimbusd.core.master.nodes import DEAD_AFTER_S, HEARTBEAT_S
from nimbusd.stages.arguments import ArgumentsError, did_you_mean, validate
from nimbusd.stages.errors import NimbusError
from nimbusd.transport.security.keys import is_name

SLOTS_PER_GPU = 2
"""While one renderer loads a scene or stores an episode, another one uses the GPU."""
SPARES = 1
MEMORY_SHARE = 0.9
PUBLISH_MEMORY_SHARE = 0.5

_SECTIONS = ("master", "worker")

M = TypeVar("M", bound="_Config")


class ConfigError(NimbusError):
    """A configuration file cannot be read, or says something that it may not."""


class _Config(BaseModel):
    """Unknown keys are errors; values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _state_folder(kind: str) -> Path:
    """The folder that systemd names, else the system's place for root and the user's for others."""
    if (given := os.environ.get("STATE_DIRECTORY")) is not None:
        return Path(given.partition(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/nimbusd") / kind
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "nimbusd" / kind


class MasterConfig(_Config):
    """The configuration of `nimbusd master`."""

    bind: tuple[str, ...] = ()
    """ZeroMQ addresses; none: the Unix socket of this user's master."""
    group: str | None = Field(default=None, min_length=1)
    """Its members may use the Unix socket, beside this user and root."""
    allow_any_local_user: bool = False
    """The loopback address takes everybody on this machine, without keys."""
    state: Path = Field(default_factory=lambda: _state_folder("master"))
    """Folder of the ledger, the keys and the allow-list."""
    trusted_import_folders: tuple[Path, ...] = ()
    """See `check_import_folders`."""
    advertise: str | None = None
    """The address that join tokens name; None: this host's name."""
    heartbeat_s: float = Field(default=HEARTBEAT_S, gt=0)
    dead_after_s: float = Field(default=DEAD_AFTER_S, gt=0)
    """A node that is silent for this time is given up."""
    publish_every_s: float = Field(default=30.0, gt=0)
    """The least time between two publishings of a running job."""
    seen_within_s: float = Field(default=60.0, ge=0)
    """The longest time that a stored piece may be out of the master's sight, as on slow network file systems."""
    publish_memory_share: float = Field(default=PUBLISH_MEMORY_SHARE, gt=0, le=1)
    """The part of the machine's memory, or of the control group's limit, that one publishing may take."""


class WorkerConfig(_Config):
    """The configuration of `nimbusd worker`."""

    master: str | None = None
    """Its address; None: of the master that was joined, or of this machine's."""
    allow_any_local_user: bool = False
    """No keys on the loopback address: whoever listens there is trusted."""
    trusted_import_folders: tuple[Path, ...] = ()
    """See `check_import_folders`."""
    name: str = Field(default_factory=platform.node, validate_default=True)
    """Unique in the cluster."""
    workers: int | None = Field(default=None, ge=0, le=256)
    """CPU slots; None: one per core that no GPU slot needs, at most 8."""
    gpus: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """GPUs to use, as nvidia-smi counts; None: those of CUDA_VISIBLE_DEVICES, or all."""
    slots_per_gpu: int = Field(default=SLOTS_PER_GPU, ge=1, le=16)
    """Compute workers on each GPU."""
    spares: int = Field(default=SPARES, ge=0, le=16)
    """Processes kept warm to take the place of a compute worker that is gone."""
    memory_share: float = Field(default=MEMORY_SHARE, gt=0, le=1)
    """The part of the machine's memory, or of the control group's limit, for all compute workers together."""
    temporary: Path | None = None
    """Folder for temporary files of compute workers; None: the service's cache folder, or this process's TMPDIR."""
    state: Path = Field(default_factory=lambda: _state_folder("worker"))
    """Folder of the node's key and of the master that it joined."""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not is_name(name):
            raise ValueError(f"{name!r} is not 1 to 63 letters, digits, dots, dashes and underscores")
        return name


def read_config(model: type[M], path: Path | None, section: str, **given: Any) -> M:
    """The configuration of a TOML file's section; options that were given (not None) go before it.

    Raises ConfigError that names the file and the key.
    """
    values = _section(path, section) if path is not None else {}
    values.update({key: _as_written(value) for key, value in given.items() if value is not None})
    try:
        return validate(model, values, f"{path} [{section}]" if path is not None else "the options")
    except ArgumentsError as error:
        raise ConfigError(str(error)) from error


def _as_written(value: object) -> object:
    """An option's value as a file has it."""
    if isinstance(value, (tuple, list)):
        return [_as_written(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _section(path: Path, section: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    for name in sorted(set(content) - set(_SECTIONS)):
        if not isinstance(content[name], dict):
            raise ConfigError(f"{path}: key {name!r} stands in no section: write it below [master] or [worker]")
        raise ConfigError(f"{path}: unknown section [{name}]; {did_you_mean(name, _SECTIONS)}")
    values = content.get(section, {})
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {section} is not a section: write [{section}] on a line of its own")
    return values

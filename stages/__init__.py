"""Stage runner and components: the data types, the five base classes, and what implements them.

The names are imported when they are first used, so that `nimbusd.stages.errors` loads neither numpy nor pydantic.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nimbusd.stages.base import (
        BaseLoader,
        BasePlanner,
        BaseRandomizer,
        BaseRenderer,
        BaseWriter,
        ComponentArgs,
        SceneConfig,
    )
    from nimbusd.stages.errors import (
        AssetError,
        BackendUnavailable,
        ComponentError,
        NimbusError,
        PlanningFailed,
        RenderError,
        StoreError,
    )
    from nimbusd.stages.types import (
        Camera,
        CameraFrames,
        Episode,
        EpisodeId,
        EpisodeRequest,
        Feature,
        Label,
        Light,
        Material,
        Observation,
        Piece,
        PieceFile,
        Room,
        Scene,
        SceneObject,
        Sequence,
        Splats,
        StageFailure,
    )

__all__ = [
    "AssetError",
    "BackendUnavailable",
    "BaseLoader",
    "BasePlanner",
    "BaseRandomizer",
    "BaseRenderer",
    "BaseWriter",
    "Camera",
    "CameraFrames",
    "ComponentArgs",
    "ComponentError",
    "Episode",
    "EpisodeId",
    "EpisodeRequest",
    "Feature",
    "Label",
    "Light",
    "Material",
    "NimbusError",
    "Observation",
    "Piece",
    "PieceFile",
    "PlanningFailed",
    "RenderError",
    "Room",
    "Scene",
    "SceneConfig",
    "SceneObject",
    "Sequence",
    "Splats",
    "StageFailure",
    "StoreError",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        for module in ("errors", "types", "base"):
            if hasattr(found := import_module(f"{__name__}.{module}"), name):
                value: object = getattr(found, name)
                globals()[name] = value
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The values that flow through the pipeline: `Scene` → `Sequence` → `Observation` → `Piece`.

Conventions, everywhere in nimbusd:

- Lengths in metres, angles in radians, times in seconds. The world is right-handed with Z up.
- `T_a_b` is a 4x4 homogeneous transform that maps coordinates in frame b to frame a.
- Camera axes follow OpenGL: x right, y up, z backwards (the camera looks along -z).
- Pixels: u to the right, v down; the centre of the top-left pixel is (0.5, 0.5), so that the
  principal point of a centred camera is (width / 2, height / 2).
- Depth is measured along the optical axis (not along the ray); 0 means "nothing was hit".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NewType, TypeAlias

import numpy as np
import numpy.typing as npt

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
U8: TypeAlias = npt.NDArray[np.uint8]
U16: TypeAlias = npt.NDArray[np.uint16]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Rgb: TypeAlias = tuple[float, float, float]

EpisodeId = NewType("EpisodeId", str)
"""`<job>/<scene>/<index>`: the same whatever node, attempt or run makes the episode."""

SIMULATION_PREFIX = "simulation."
"""Start of the keys of states that only a replay needs: a simulator's own, in its own order and precision."""
SIMULATION_QPOS = f"{SIMULATION_PREFIX}qpos"
"""Positions of every joint of the simulator, (T, nq) float64."""
SIMULATION_QVEL = f"{SIMULATION_PREFIX}qvel"
"""Speeds of every joint of the simulator, (T, nv) float64."""

BACKGROUND_ID = 0
"""Instance and semantic id of pixels that hit nothing."""


@dataclass(frozen=True, slots=True)
class Material:
    """The looks of a surface: the part of the glTF metallic-roughness model that every backend can show.

    base_color: linear RGB in 0…1; multiplied with `texture` where there is one.
    texture: (H, W, 3) uint8 sRGB, row 0 at the top (v = 1), or None.
    roughness, metallic: 0…1.
    emission: radiance of the surface in W/m²/sr times `base_color`; 0 for surfaces that do not glow.
    opacity: 1 is solid. Surfaces below 0.5 (glass) are seen through by depth and segmentation.
    """

    name: str
    base_color: Rgb = (0.8, 0.8, 0.8)
    texture: U8 | None = None
    roughness: float = 0.6
    metallic: float = 0.0
    emission: float = 0.0
    opacity: float = 1.0


@dataclass(frozen=True, slots=True)
class SceneObject:
    """A rigid thing in a scene: a triangle mesh with materials and a pose. It is an instance, or a part of one."""

    name: str
    """Unique in its scene."""
    category: str
    """A lower-case word such as `chair`, `wall`, `floor`."""
    instance_id: int
    """1…65535, unique in its scene but for parts; the value of its pixels in instance segmentation."""
    vertices: F32
    """(V, 3) float32 metres, object frame."""
    faces: I32
    """(F, 3) int32, counter-clockwise from outside."""
    materials: tuple[Material, ...]
    face_material: I32
    """(F,) int32, index into `materials`."""
    uvs: F32 | None = None
    """(F, 3, 2) float32, one per face corner, v upwards; None without texture coordinates."""
    T_world_object: F64 = field(default_factory=lambda: np.eye(4))
    smooth: bool = False
    """True shades with interpolated normals."""
    movable: bool = False
    """True lets a randomizer move it (furniture, not walls)."""
    part_of: str = ""
    """Of one of several that are one instance (a robot's links, a cabinet and its door), the instance's name.

    Its parts share `instance_id` and `category`, and one row of the label table; a part with that very name may leave
    this empty.
    """

    @property
    def instance_name(self) -> str:
        """Of the instance that it is, or is a part of."""
        return self.part_of or self.name

    def world_vertices(self) -> F64:
        """(V, 3) float64 metres, world frame."""
        T = self.T_world_object
        return np.asarray(self.vertices.astype(np.float64) @ T[:3, :3].T + T[:3, 3])


@dataclass(frozen=True, slots=True)
class Light:
    """A lamp. It shines along -z of its frame (point lamps shine everywhere).

    color: linear RGB. power_w: watts for point and area, W/m² for sun.
    size_m: (x, y) edge lengths of an area lamp, radius twice for a point lamp.
    """

    name: str
    kind: Literal["point", "area", "sun"]
    T_world_light: F64
    power_w: float
    color: Rgb = (1.0, 1.0, 1.0)
    size_m: tuple[float, float] = (0.1, 0.1)


@dataclass(frozen=True, slots=True)
class Room:
    """A room's floor. polygon: (N, 2) float64 world x, y in metres, counter-clockwise. z_m: floor height."""

    name: str
    category: str
    polygon: F64
    z_m: float = 0.0


@dataclass(frozen=True, slots=True)
class Splats:
    """A cloud of N 3D Gaussians that shows a scene (3D Gaussian splatting), in a frame of its own."""

    means: F32
    """(N, 3) float32 centres."""
    scales: F32
    """(N, 3) float32 standard deviations along the Gaussian's axes, above 0."""
    quats: F32
    """(N, 4) float32 unit quaternions w, x, y, z: the axes' rotation."""
    opacities: F32
    """(N,) float32 in 0…1."""
    sh: F32
    """(N, K, 3) float32 spherical harmonics of the colour with K = (degree + 1)², degree 0…3.

    Their value plus 0.5 is the sRGB-encoded colour seen along a direction of this frame.
    """
    T_world_splats: F64 = field(default_factory=lambda: np.eye(4))
    """(4, 4) float64, a rotation, a shift and one scale (metres per unit of this frame).

    Colours depend on the direction in this frame, so the cloud is never rotated: cameras are taken to it.
    """

    def __len__(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        return int(np.sqrt(self.sh.shape[1])) - 1

    @property
    def unit_m(self) -> float:
        """Metres per unit of the cloud's frame."""
        return float(np.cbrt(np.linalg.det(self.T_world_splats[:3, :3])))

    def world_means(self) -> F64:
        """(N, 3) float64 metres, world frame."""
        T = self.T_world_splats
        return np.asarray(self.means.astype(np.float64) @ T[:3, :3].T + T[:3, 3])


@dataclass(frozen=True)
class Scene:
    """A loaded scene, independent of any renderer. World frame: metres, Z up."""

    name: str
    objects: tuple[SceneObject, ...]
    lights: tuple[Light, ...] = ()
    rooms: tuple[Room, ...] = ()
    """Empty for a bare mesh; planners then find the floors themselves."""
    sky_color: Rgb = (1.0, 1.0, 1.0)
    """Linear RGB that rays which leave the scene see, times `sky_strength`."""
    sky_strength: float = 0.0
    """W/m²/sr."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """JSON values: where it came from (paths, seeds, licences)."""
    splats: Splats | None = None
    """The scene's looks as Gaussians, where a loader made them; `objects` are then the proxy mesh to plan on."""

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) of all that can be seen or collided with; equal scenes have equal hashes."""
        digest = hashlib.sha256()

        def feed(*values: object) -> None:
            for value in values:
                if isinstance(value, np.ndarray):
                    digest.update(repr((value.dtype.str, value.shape)).encode())
                    digest.update(np.ascontiguousarray(value).tobytes())
                else:
                    digest.update(repr(value).encode() + b"\0")

        feed(self.sky_color, self.sky_strength)
        for obj in self.objects:
            feed(obj.name, obj.category, obj.instance_id, obj.vertices, obj.faces, obj.face_material)
            feed(obj.uvs, obj.T_world_object, obj.smooth)
            if obj.part_of:
                feed(obj.part_of)
            for mat in obj.materials:
                feed(mat.base_color, mat.texture, mat.roughness, mat.metallic, mat.emission, mat.opacity)
        for light in self.lights:
            feed(light.kind, light.T_world_light, light.power_w, light.color, light.size_m)
        if self.splats is not None:
            cloud = self.splats
            feed(cloud.means, cloud.scales, cloud.quats, cloud.opacities, cloud.sh, cloud.T_world_splats)
        return digest.hexdigest()

    def bounds(self) -> tuple[F64, F64]:
        """Lowest and highest corner, (3,) float64 each, world metres. Raises ValueError without objects."""
        if not self.objects:
            raise ValueError(f"scene {self.name!r} has no objects, so it has no bounds")
        corners = [obj.world_vertices() for obj in self.objects]
        low = np.min([c.min(axis=0) for c in corners], axis=0)
        high = np.max([c.max(axis=0) for c in corners], axis=0)
        return low, high


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera without distortion. fx, fy, cx, cy in pixels (pixel centres at +0.5)."""

    name: str
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def matrix(self) -> F64:
        """(3, 3) float64 K: u = fx x/z + cx with x right, y down, z forward."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)


@dataclass(frozen=True, slots=True)
class Feature:
    """A per-frame column of a sequence. values: (T, …) array; names: what each element of a row is."""

    values: npt.NDArray[Any]
    names: tuple[str, ...] | None = None


def is_for_replay(name: str) -> bool:
    """True for states of a simulator: a replay needs them, a dataset has no column of them."""
    return name.startswith(SIMULATION_PREFIX)


@dataclass(frozen=True, slots=True)
class Sequence:
    """A planned trajectory: all a renderer needs to make T observations, and all that is stored beside them."""

    fps: float
    """Frames per second of every array here."""
    task: str
    """The instruction in words."""
    cameras: tuple[Camera, ...]
    """Intrinsics by camera."""
    T_world_camera: Mapping[str, F64]
    """Camera → (T, 4, 4) float64."""
    T_base_camera: Mapping[str, F64]
    """Camera → (4, 4) float64, the mounting on the robot; base frame x forward, z up."""
    states: Mapping[str, Feature]
    """Dataset key (`observation.state`) → T rows. Those that `is_for_replay` are a simulator's state."""
    actions: Mapping[str, Feature]
    """Dataset key (`action`) → T rows."""
    T_world_object: Mapping[str, F64] = field(default_factory=dict)
    """Moved object's name → (T, 4, 4) float64; objects not named here stand still."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """JSON values for the episode's metadata; `nimbusd.stages.notes` has those that are read."""
    plan_info: bytes = b""
    """Bytes for the planner's own renderer (see stages/workflow); opaque to all others, not stored."""

    def __len__(self) -> int:
        """T; of the states where there is no camera."""
        if self.T_world_camera:
            return len(next(iter(self.T_world_camera.values())))
        return len(next(iter(self.states.values())).values) if self.states else 0


@dataclass(frozen=True, slots=True)
class Label:
    """One row of a segmentation table: pixels of `instance_id` show instance `name` of `category`, or a part of it."""

    instance_id: int
    semantic_id: int
    name: str
    category: str


@dataclass(frozen=True, slots=True)
class CameraFrames:
    """The frames of one camera: T frames of H x W pixels, sampled at pixel centres except RGB (antialiased)."""

    rgb: U8
    """(T, H, W, 3) uint8 sRGB."""
    depth_m: F32 | None = None
    """(T, H, W) float32 metres along the optical axis, 0 = no hit. None where the renderer was not asked."""
    instance: U16 | None = None
    """(T, H, W) uint16 ids, 0 = background. None where the renderer was not asked."""
    semantic: U16 | None = None
    """(T, H, W) uint16 ids, 0 = background. None where the renderer was not asked."""
    coverage: F32 | None = None
    """(T, H, W) float32 in 0…1, the part of the pixel that the scene covers. None where surfaces have no holes."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The frames of all cameras along a sequence. labels: every object that ids in the frames can name.

    files: what a workflow saved in a format of its own, by relative POSIX path; stored beside the rest as it is.
    """

    frames: Mapping[str, CameraFrames]
    labels: tuple[Label, ...] = ()
    renderer: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PieceFile:
    """A file of a piece. path: relative to the piece, POSIX. sha256: hex."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Piece:
    """An episode's files before publishing, durable under `<output>/.pieces/<folder>`.

    folder: name of the piece's folder. length: frames. files: every file in it, sorted by path.
    fingerprint: of the job that it was made for; empty if it was stored without one.
    """

    folder: str
    length: int
    files: tuple[PieceFile, ...]
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class EpisodeRequest:
    """An episode to make. variant: which randomization of the scene it uses. attempt: fencing number.

    fingerprint: of the job, which its piece keeps.
    """

    job: str
    scene: str
    index: int
    variant: int = 0
    attempt: int = 1
    fingerprint: str = ""

    @property
    def episode_id(self) -> EpisodeId:
        return EpisodeId(f"{self.job}/{self.scene}/{self.index}")


@dataclass(frozen=True, slots=True)
class StageFailure:
    """The reason why an episode came to nothing. stage: load, randomize, plan, render or store.

    reason: snake_case word that statistics group by. planned: True for PlanningFailed (a result, not
    retried). evidence: traceback, stack or stderr for the person who looks into it.
    """

    stage: str
    reason: str
    detail: str
    planned: bool = False
    evidence: str = ""


@dataclass(slots=True)
class Episode:
    """An episode on its way through the stages; each stage fills its field, or `failure` once.

    timings_s: stage → seconds spent in it. context: job facts that the writer records (JSON values).
    """

    request: EpisodeRequest
    output: Path
    scene: Scene | None = None
    sequence: Sequence | None = None
    observation: Observation | None = None
    piece: Piece | None = None
    failure: StageFailure | None = None
    timings_s: dict[str, float] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)

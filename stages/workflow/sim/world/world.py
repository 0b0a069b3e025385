"""`World`: the MuJoCo model of a layout, with the addresses by which the rest finds joints, bodies and geoms.

What makes grasps hold: position servos with gravity compensation instead of torque motors, `implicitfast`, the elliptic
friction cone with a high `impratio`, and a bounded grip force. Actuators are found by name, never by position.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from nimbusd.stages.errors import AssetError
from nimbusd.stages.types import F64, I32, U16, BoolArray
from nimbusd.stages.workflow.sim.layout.labels import FLOOR_ID, ROBOT_ID, TABLE_ID, WALL_ID
from nimbusd.stages.workflow.sim.layout.layout import Layout, Surface
from nimbusd.stages.workflow.sim.models.robots import ArmModel, RobotModel
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco as import_mujoco
from nimbusd.stages.workflow.sim.rotation import transform
from nimbusd.stages.workflow.sim.world.bodies import VISIBLE_GROUP, add_material, add_object
from nimbusd.stages.workflow.sim.world.robot_bodies import add_robot

NEAR_M, FAR_M = 0.01, 30.0
"""Clipping planes of rendering."""

ROOM_M = 3.0
ROOM_HEIGHT_M = 2.6


@dataclass(frozen=True)
class ArmIndex:
    """Addresses of an arm in the model. n joints.

    q, v: of its joints in qpos and qvel.
    servos: ids of its actuators.
    fingers_q, fingers_v, finger_servos: the same of the gripper.
    flange, base: body ids.
    T_ee_tcp: (4, 4) tool centre in the flange frame.
    lower, upper: (n,) limits of the joints, radians; infinite for a joint that turns without end.
    bodies: ids of all its bodies.
    finger_bodies: those that may touch what is grasped.
    hand_bodies: the whole gripper.
    """

    name: str
    model: ArmModel
    q: I32
    v: I32
    servos: I32
    fingers_q: I32
    fingers_v: I32
    finger_servos: I32
    flange: int
    base: int
    T_ee_tcp: F64
    lower: F64
    upper: F64
    bodies: frozenset[int]
    finger_bodies: frozenset[int]
    hand_bodies: frozenset[int]

    @property
    def endless(self) -> BoolArray:
        """(n,) True for joints without limits: positions of theirs that differ by whole turns are one posture."""
        return np.asarray(np.isinf(self.lower) & np.isinf(self.upper))

    def opening_of(self, qpos: F64) -> F64:
        """Distance between the pads for (…, nq) states, metres."""
        low, high = self.model.gripper.opening_m
        shares = [
            (qpos[..., address] - finger.closed) / (finger.open - finger.closed)
            for address, finger in zip(self.fingers_q, self.model.gripper.fingers, strict=True)
        ]
        return np.asarray(low + (high - low) * np.mean(shares, axis=0))

    def opening_velocity_of(self, qvel: F64) -> F64:
        """Speed at which the pads part for (…, nv) velocities, metres per second."""
        low, high = self.model.gripper.opening_m
        rates = [
            qvel[..., address] / (finger.open - finger.closed)
            for address, finger in zip(self.fingers_v, self.model.gripper.fingers, strict=True)
        ]
        return np.asarray((high - low) * np.mean(rates, axis=0))

    def finger_targets(self, opening_m: float) -> F64:
        """Set points of the finger servos for an opening."""
        low, high = self.model.gripper.opening_m
        share = (min(max(opening_m, low), high) - low) / (high - low)
        return np.array([f.closed + share * (f.open - f.closed) for f in self.model.gripper.fingers])


@dataclass(frozen=True)
class ObjectIndex:
    """Addresses of an object. free_q, free_v, joint_q: addresses in qpos and qvel, -1 where it has none.

    part: the body that its joint moves, -1 without one.
    """

    name: str
    body: int
    free_q: int
    free_v: int
    joint_q: int
    part: int
    bodies: frozenset[int]


@dataclass
class World:
    """A compiled layout. owner: per geom, `table`, `floor`, `wall`, an object's name or `robot/<arm>`.

    instance: (ngeom,) uint16 id of each geom. arms, objects: by name.
    """

    layout: Layout
    model: Any
    arms: dict[str, ArmIndex]
    objects: dict[str, ObjectIndex]
    owner: tuple[str, ...]
    instance: U16
    T_world_robot: F64
    start: F64 = field(repr=False)

    @property
    def nq(self) -> int:
        return int(self.model.nq)

    def arm(self, name: str) -> ArmIndex:
        """The arm called `name`; the only one for an empty name. Raises KeyError that lists them."""
        if not name and len(self.arms) == 1:
            return next(iter(self.arms.values()))
        if name not in self.arms:
            raise KeyError(f"the robot {self.layout.robot.model!r} has no arm {name!r}; it has {sorted(self.arms)}")
        return self.arms[name]


def build_world(layout: Layout) -> World:
    """The compiled model of a layout. Deterministic. Raises AssetError for missing files, BackendUnavailable.

    The last few are kept: checking, planning, and showing a layout in one process compile it once, as does the bare
    robot that is checked before. Do not change them.
    """
    return _build(orjson.dumps(layout.to_json(), option=orjson.OPT_SORT_KEYS))


@lru_cache(maxsize=3)
def _build(text: bytes) -> World:
    layout = Layout.from_json(orjson.loads(text))
    mujoco = import_mujoco()
    robot = layout.robot.definition
    spec = mujoco.MjSpec()
    _set_options(mujoco, spec, layout)
    _add_room(mujoco, spec, layout)
    add_robot(mujoco, spec, robot, layout.robot.base.matrix())
    for entry in layout.objects:
        add_object(spec, entry)
    try:
        model = spec.compile()
    except ValueError as error:
        words = " ".join(str(error).split())
        raise AssetError(f"MuJoCo cannot make the world of task '{layout.task}': {words}") from error
    return _index(mujoco, layout, robot, model)


def _set_options(mujoco: Any, spec: Any, layout: Layout) -> None:
    physics, option = layout.physics, spec.option
    option.timestep = physics.timestep_s
    option.gravity = [0.0, 0.0, physics.gravity]
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = physics.impratio
    option.noslip_iterations = 2
    spec.compiler.degree = False
    # With an extent of 1 the clipping planes and shadow sizes below are metres.
    spec.stat.extent = 1.0
    spec.stat.center = [*layout.table.centre, layout.table.height_m]
    spec.visual.map.znear, spec.visual.map.zfar = NEAR_M, FAR_M
    spec.visual.map.shadowclip = 1.1
    spec.visual.quality.shadowsize = 2048
    # MuJoCo drops the ambient part of lamps that cast shadows: it is given as that of the light at the camera.
    spec.visual.headlight.ambient = np.sum([np.zeros(3), *(np.asarray(lamp.ambient) for lamp in layout.lights)], axis=0)
    spec.visual.headlight.diffuse = spec.visual.headlight.specular = np.zeros(3)


def _add_room(mujoco: Any, spec: Any, layout: Layout) -> None:
    box = mujoco.mjtGeom.mjGEOM_BOX
    world = spec.worldbody
    looks = {name: layout.background.get(name, Surface()) for name in ("floor", "wall")}
    for name, surface in looks.items():
        add_material(spec, name, surface)
    world.add_geom(
        name="floor", type=box, size=[ROOM_M, ROOM_M, 0.05], pos=[0, 0, -0.05], material="floor", group=VISIBLE_GROUP
    )
    half = ROOM_HEIGHT_M / 2
    for number, (x, y) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
        world.add_geom(
            name=f"wall/{number}", type=box, material="wall", group=VISIBLE_GROUP,
            size=[0.05 if x else ROOM_M, 0.05 if y else ROOM_M, half],
            pos=[x * (ROOM_M + 0.05), y * (ROOM_M + 0.05), half],
        )  # fmt: skip
    for lamp in layout.lights:
        sun = lamp.kind == "sun"
        world.add_light(
            name=lamp.name, type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL if sun else mujoco.mjtLightType.mjLIGHT_SPOT,
            pos=list(lamp.position), dir=list(lamp.direction), diffuse=list(lamp.diffuse), ambient=[0.0] * 3,
            specular=[0.3, 0.3, 0.3], castshadow=lamp.shadow, cutoff=70.0, exponent=2.0, attenuation=[1.0, 0.0, 0.0],
        )  # fmt: skip
    table = layout.table
    add_material(spec, "table", table.surface)
    add_material(spec, "table/legs", Surface(color=(0.25, 0.25, 0.27)))
    (cx, cy), (sx, sy), thickness = table.centre, table.size_m, 0.04
    world.add_geom(
        name="table", type=box, size=[sx / 2, sy / 2, thickness / 2], pos=[cx, cy, table.height_m - thickness / 2],
        material="table", group=VISIBLE_GROUP, friction=[table.friction, 0.02, 0.001], condim=4,
    )  # fmt: skip
    leg = (table.height_m - thickness) / 2
    for number, (x, y) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1))):
        world.add_geom(
            name=f"table/leg{number}", type=box, size=[0.03, 0.03, leg], material="table/legs", group=VISIBLE_GROUP,
            pos=[cx + x * (sx / 2 - 0.06), cy + y * (sy / 2 - 0.06), leg],
        )  # fmt: skip
    for region in layout.regions:
        if region.visible:
            world.add_geom(
                name=f"region/{region.name}", type=box, group=VISIBLE_GROUP, contype=0, conaffinity=0,
                size=[region.size_m[0] / 2, region.size_m[1] / 2, 0.0005], rgba=[*region.color, 1.0],
                pos=list(region.pose.position), quat=list(region.pose.quaternion),
            )  # fmt: skip


def _index(mujoco: Any, layout: Layout, robot: RobotModel, model: Any) -> World:
    arms = {name: _index_arm(model, name, arm) for name, arm in robot.arms.items()}
    objects = {entry.name: _index_object(mujoco, model, entry.name) for entry in layout.objects}
    owner, instance = _owners(model, layout, arms, objects)
    start = np.array(model.qpos0, np.float64)
    for name, index in arms.items():
        start[index.q] = layout.robot.start[name]
        start[index.fingers_q] = index.finger_targets(layout.robot.opening[name])
    for entry in layout.objects:
        found = objects[entry.name]
        if found.free_q >= 0:
            start[found.free_q : found.free_q + 7] = [*entry.pose.position, *entry.pose.quaternion]
        if found.joint_q >= 0:
            start[found.joint_q] = entry.joint
    return World(layout, model, arms, objects, owner, instance, layout.robot.base.matrix(), start)


def _index_arm(model: Any, name: str, arm: ArmModel) -> ArmIndex:
    prefix, gripper = f"robot{arm.part}/", f"gripper/{name}/"
    joints = [model.joint(prefix + joint) for joint in arm.joints]
    fingers = [model.joint(gripper + finger.joint) for finger in arm.gripper.fingers]
    flange = int(model.body(prefix + arm.flange).id)
    base = int(model.body(prefix + arm.base).id) if arm.base else int(model.jnt_bodyid[joints[0].id])
    bodies = [body for body in range(model.nbody) if model.body(body).name.startswith((prefix, gripper))]
    hand = frozenset(body for body in bodies if model.body(body).name.startswith(gripper)) | {flange}

    # The range of a joint without limits reads 0 … 0.
    limits = np.array([model.jnt_range[j.id] if model.jnt_limited[j.id] else (-np.inf, np.inf) for j in joints])

    def integers(values: list[int]) -> I32:
        return np.array(values, np.int32)

    return ArmIndex(
        name=name,
        model=arm,
        q=integers([int(joint.qposadr[0]) for joint in joints]),
        v=integers([int(joint.dofadr[0]) for joint in joints]),
        servos=integers([int(model.actuator(f"servo/{name}/{joint}").id) for joint in arm.joints]),
        fingers_q=integers([int(joint.qposadr[0]) for joint in fingers]),
        fingers_v=integers([int(joint.dofadr[0]) for joint in fingers]),
        finger_servos=integers([int(model.actuator(f"servo/{name}/{f.joint}").id) for f in arm.gripper.fingers]),
        flange=flange,
        base=base,
        T_ee_tcp=transform(None, arm.gripper.tcp_m),
        lower=limits[:, 0],
        upper=limits[:, 1],
        bodies=frozenset(bodies),
        finger_bodies=frozenset(int(model.body(gripper + body).id) for body in arm.gripper.finger_bodies),
        hand_bodies=hand,
    )


def _index_object(mujoco: Any, model: Any, name: str) -> ObjectIndex:
    body = int(model.body(f"object/{name}").id)
    family = frozenset(b for b in range(model.nbody) if model.body(b).name.split("/")[:2] == ["object", name])
    free = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, f"object/{name}/free")
    joint = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, f"object/{name}/joint")
    return ObjectIndex(
        name=name,
        body=body,
        free_q=int(model.jnt_qposadr[free]) if free >= 0 else -1,
        free_v=int(model.jnt_dofadr[free]) if free >= 0 else -1,
        joint_q=int(model.jnt_qposadr[joint]) if joint >= 0 else -1,
        part=int(model.jnt_bodyid[joint]) if joint >= 0 else -1,
        bodies=family,
    )


def _owners(
    model: Any, layout: Layout, arms: dict[str, ArmIndex], objects: dict[str, ObjectIndex]
) -> tuple[tuple[str, ...], U16]:
    of_body: dict[int, tuple[str, int]] = {}
    for number, (name, arm) in enumerate(arms.items()):
        of_body.update(dict.fromkeys(arm.bodies, (f"robot/{name}", ROBOT_ID + number)))
    for entry in layout.objects:
        of_body.update(dict.fromkeys(objects[entry.name].bodies, (entry.name, entry.instance_id)))
    room = {"floor": FLOOR_ID, "wall": WALL_ID, "table": TABLE_ID}
    regions = {f"region/{region.name}": (region.name, region.instance_id) for region in layout.regions}
    owners: list[str] = []
    ids = np.zeros(model.ngeom, np.uint16)
    for geom in range(model.ngeom):
        name = model.geom(geom).name
        word = name.split("/")[0]
        if name in regions:
            owner, ids[geom] = regions[name]
        elif int(model.geom_bodyid[geom]) in of_body:
            owner, ids[geom] = of_body[int(model.geom_bodyid[geom])]
        else:
            owner, ids[geom] = word, room[word]
        owners.append(owner)
    return tuple(owners), ids

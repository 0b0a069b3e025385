"""The bodies of a world for SAPIEN's physics, from its MuJoCo model: shapes, inertias, joints, servos, what may touch.

Bodies that are welded to each other are one: a static one where they are welded to the world, a free one where they
have a free joint, else a link of an articulation. PhysX computes in float32.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from nimbusd.stages.errors import AssetError, BackendUnavailable
from nimbusd.stages.types import F64, I32
from nimbusd.stages.workflow.sim.rotation import inverse, matrix_of, quaternion_of, transform
from nimbusd.stages.workflow.sim.world import import_mujoco

_CONTACT_M = 0.002
"""How far from a shape its contacts begin to be found; a body at 1 m/s goes 2 mm in a step."""

_ITERATIONS = 16, 1
"""Of PhysX's solver per step: positions, velocities."""

_MOST_EXCLUDED = 32
_IGNORE_BITS = 16


def import_sapien() -> Any:
    """The package, for physics alone: no device to draw on is needed. Raises BackendUnavailable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses Vulkan, which draws
            import sapien
            import sapien.physx
    except ImportError as error:
        raise BackendUnavailable(
            f"`simulator: sapien` needs SAPIEN 3 ({error}): pip install 'nimbusd[sapien]', or simulate with mujoco"
        ) from error
    return sapien


@dataclass
class Free:
    """A body that moves freely. q, v: its addresses in qpos and qvel. centre: (3,) of mass, in its frame."""

    component: Any
    entity: Any
    q: int
    v: int
    centre: F64


@dataclass
class Tree:
    """An articulation. q, v: addresses of its active joints in qpos and qvel. zero: qpos where PhysX counts from.

    servo: of each joint its actuator, -1 without. damping, dry: of joints that PhysX does not brake itself, per joint.
    most: the damping above which an explicit brake would swing.
    """

    articulation: Any
    joints: list[Any]
    q: I32
    v: I32
    zero: F64
    servo: I32
    damping: F64
    dry: F64
    most: F64


@dataclass
class Bodies:
    """What a scene holds. geom_of: collision shape → geom id."""

    scene: Any
    system: Any
    frees: list[Free]
    trees: list[Tree]
    geom_of: dict[Any, int]


def build_bodies(model: Any) -> Bodies:
    """A new scene with the model's bodies, as in `qpos0`.

    Raises AssetError for joints and shapes that SAPIEN has no counterpart of.
    """
    return _Builder(model).build()


class _Builder:
    def __init__(self, model: Any) -> None:
        self._sapien, self._mujoco, self._model = import_sapien(), import_mujoco(), model
        self._physx = self._sapien.physx
        data = self._mujoco.MjData(model)
        self._mujoco.mj_kinematics(model, data)
        self._T = [_pose_matrix(data.xpos[body], data.xmat[body]) for body in range(model.nbody)]
        self._weld = np.array(model.body_weldid)
        self._ignored = _ignored(model)
        self._materials: dict[tuple[float, ...], Any] = {}
        self._geom_of: dict[Any, int] = {}

    def build(self) -> Bodies:
        physx, model = self._physx, self._model
        kept, config = physx.get_scene_config(), physx.PhysxSceneConfig()
        config.gravity = np.array(model.opt.gravity, np.float32)
        config.enable_enhanced_determinism = True
        physx.set_scene_config(config)  # a setting of the process, read where a system is made
        try:
            system = physx.PhysxCpuSystem()
        finally:
            physx.set_scene_config(kept)
        system.set_timestep(float(model.opt.timestep))
        scene = self._sapien.Scene([system])
        frees, trees = [], []
        for body in np.flatnonzero(self._weld == 0).tolist():
            self._add_static(scene, body)
        # MuJoCo numbers bodies depth first: what hangs together stands together, parents first.
        moving = sorted(set(self._weld.tolist()) - {0})
        for root, groups in groupby(moving, key=lambda group: int(model.body_rootid[group])):
            links = list(groups)
            if len(links) == 1 and self._joint_kind(links[0]) == self._mujoco.mjtJoint.mjJNT_FREE:
                frees.append(self._add_free(scene, links[0]))
            else:
                trees.append(self._add_tree(scene, root, links))
        return Bodies(scene, system, frees, trees, self._geom_of)

    # Bodies -----------------------------------------------------------------------------------------------------

    def _add_static(self, scene: Any, body: int) -> None:
        component = self._physx.PhysxRigidStaticComponent()
        if self._attach(component, body, [body]):
            self._add(scene, component, self._T[body])

    def _add_free(self, scene: Any, group: int) -> Free:
        model, joint, bodies = self._model, self._joint(group), self._welded(group)
        component = self._physx.PhysxRigidDynamicComponent()
        self._attach(component, group, bodies)
        centre = self._give_mass(component, group, bodies)
        component.sleep_threshold = 0.0
        component.solver_position_iterations, component.solver_velocity_iterations = _ITERATIONS
        entity = self._add(scene, component, self._T[group])
        return Free(component, entity, int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint]), centre)

    def _add_tree(self, scene: Any, root: int, groups: list[int]) -> Tree:
        """An articulation whose links are what moves; what they hang on is static, and stands for itself."""
        model, physx = self._model, self._physx
        base = physx.PhysxArticulationLinkComponent(None)
        base.joint.type = "fixed"
        entity = self._sapien.Entity()
        entity.add_component(base)
        entity.set_pose(self._pose(self._T[root]))
        links, entities, joints = {0: base}, [entity], dict[int, Any]()
        for group in groups:
            bodies = self._welded(group)
            parent = int(self._weld[model.body_parentid[group]])
            link = physx.PhysxArticulationLinkComponent(links[parent])
            link.joint.name = model.joint(self._joint(group)).name
            self._place_joint(link.joint, group, self._T[parent] if parent else self._T[root])
            self._attach(link, group, bodies)
            self._give_mass(link, group, bodies)
            links[group], joints[group] = link, link.joint
            entity = self._sapien.Entity()
            entity.add_component(link)
            entities.append(entity)
        for entity in entities:
            scene.add_entity(entity)
        articulation = base.articulation
        articulation.set_solver_position_iterations(_ITERATIONS[0])
        articulation.set_solver_velocity_iterations(_ITERATIONS[1])
        articulation.set_sleep_threshold(0.0)
        return self._tree(articulation, {joint.name: self._joint(group) for group, joint in joints.items()})

    def _tree(self, articulation: Any, ids: dict[str, int]) -> Tree:
        """Servos and brakes of an articulation. A joint without a servo is braked by PhysX, one with it by us."""
        model, active = self._model, articulation.get_active_joints()
        order = np.array([ids[joint.name] for joint in active], np.int32)
        servos = {int(model.actuator_trnid[number, 0]): number for number in range(model.nu)}
        q, v = model.jnt_qposadr[order], model.jnt_dofadr[order]
        servo = np.array([servos.get(int(joint), -1) for joint in order], np.int32)
        for number, joint in enumerate(active):
            joint.set_armature(np.array([model.dof_armature[v[number]]], np.float32))
            joint.set_friction(0.0)
            which = servo[number]
            if which >= 0:
                kp, kv = float(model.actuator_gainprm[which, 0]), -float(model.actuator_biasprm[which, 2])
                joint.set_drive_properties(kp, kv, float(model.actuator_forcerange[which, 1]))
            else:
                stiffness = float(model.jnt_stiffness[order[number]])
                joint.set_drive_properties(stiffness, float(model.dof_damping[v[number]]))
                rest = float(model.qpos_spring[q[number]] - model.qpos0[q[number]])
                joint.set_drive_target(rest)
        return Tree(
            articulation, active, q, v, np.array(model.qpos0[q]), servo,
            damping=np.where(servo >= 0, model.dof_damping[v], 0.0), dry=np.array(model.dof_frictionloss[v]),
            most=0.5 / (model.dof_invweight0[v] * model.opt.timestep),
        )  # fmt: skip

    def _add(self, scene: Any, component: Any, T: F64) -> Any:
        entity = self._sapien.Entity()
        entity.add_component(component)
        entity.set_pose(self._pose(T))
        scene.add_entity(entity)
        return entity

    def _welded(self, group: int) -> list[int]:
        """The bodies that are welded to the first of them, which gives the group its number."""
        found: list[int] = np.flatnonzero(self._weld == group).tolist()
        return found

    # Joints -----------------------------------------------------------------------------------------------------

    def _joint(self, group: int) -> int:
        """The one joint of a group of welded bodies. Raises AssetError for more."""
        if int(self._model.body_jntnum[group]) != 1:
            name = self._model.body(group).name
            raise AssetError(f"body '{name}' has several joints, SAPIEN has one for each: simulate with mujoco")
        return int(self._model.body_jntadr[group])

    def _joint_kind(self, group: int) -> int:
        return int(self._model.jnt_type[self._joint(group)])

    def _place_joint(self, joint: Any, group: int, T_parent: F64) -> None:
        """PhysX's joints turn about, and slide along, the x axis of their frame."""
        model, number, kinds = self._model, self._joint(group), self._mujoco.mjtJoint
        names = {int(kinds.mjJNT_HINGE): "revolute_unwrapped", int(kinds.mjJNT_SLIDE): "prismatic"}
        if (kind := self._joint_kind(group)) not in names:
            raise AssetError(
                f"joint '{model.joint(number).name}' is neither a hinge nor a slide: SAPIEN cannot move it, simulate "
                "with mujoco"
            )
        joint.type = names[kind]
        T_link_joint = transform(_along(model.jnt_axis[number]), model.jnt_pos[number])
        joint.pose_in_child = self._pose(T_link_joint)
        joint.pose_in_parent = self._pose(inverse(T_parent) @ self._T[group] @ T_link_joint)
        low, high = (-np.inf, np.inf)
        if model.jnt_limited[number]:
            low, high = model.jnt_range[number] - model.qpos0[model.jnt_qposadr[number]]
        joint.limit = np.array([[low, high]], np.float32)

    # Shapes and masses ------------------------------------------------------------------------------------------

    def _attach(self, component: Any, group: int, bodies: list[int]) -> int:
        """Give a component the collision shapes of its bodies; returns how many."""
        model, count = self._model, 0
        bits, family = self._ignored.get(group, (0, 0))
        for geom in np.flatnonzero(np.isin(model.geom_bodyid, bodies)).tolist():
            kind, affinity = int(model.geom_contype[geom]), int(model.geom_conaffinity[geom])
            if not kind and not affinity:
                continue
            body = int(model.geom_bodyid[geom])
            T_body_geom = matrix_of(model.geom_pos[geom], model.geom_quat[geom])
            shape, T_geom_shape = self._shape(geom)
            shape.local_pose = self._pose(inverse(self._T[group]) @ self._T[body] @ T_body_geom @ T_geom_shape)
            shape.set_collision_groups([kind, affinity, bits, family])
            shape.contact_offset = _CONTACT_M
            patch = 1.5 * float(model.geom_friction[geom, 1] / model.geom_friction[geom, 0])
            shape.set_patch_radius(patch)
            shape.set_min_patch_radius(patch)
            component.attach(shape)
            self._geom_of[shape] = geom
            count += 1
        return count

    def _shape(self, geom: int) -> tuple[Any, F64]:
        """A collision shape, and its frame in the geom's: long ones lie along x, MuJoCo's along z."""
        model, kinds, physx = self._model, self._mujoco.mjtGeom, self._physx
        kind, size = int(model.geom_type[geom]), [float(edge) for edge in model.geom_size[geom]]
        material = self._material(float(model.geom_friction[geom, 0]))
        upright = transform(_along(np.array([0.0, 0.0, 1.0])))
        if kind == kinds.mjGEOM_BOX:
            return physx.PhysxCollisionShapeBox(size, material), np.eye(4)
        if kind == kinds.mjGEOM_SPHERE:
            return physx.PhysxCollisionShapeSphere(size[0], material), np.eye(4)
        if kind == kinds.mjGEOM_CAPSULE:
            return physx.PhysxCollisionShapeCapsule(size[0], size[1], material), upright
        if kind == kinds.mjGEOM_CYLINDER:
            return physx.PhysxCollisionShapeCylinder(size[0], size[1], material), upright
        if kind == kinds.mjGEOM_PLANE:
            return physx.PhysxCollisionShapePlane(material), upright
        if kind == kinds.mjGEOM_MESH:
            vertices = np.ascontiguousarray(_hull(model, int(model.geom_dataid[geom])), np.float32)
            return physx.PhysxCollisionShapeConvexMesh(vertices, [1, 1, 1], material), np.eye(4)
        name = model.geom(geom).name or model.body(int(model.geom_bodyid[geom])).name
        raise AssetError(f"a collision shape of '{name}' is of a kind that SAPIEN lacks: simulate with mujoco")

    def _material(self, friction: float) -> Any:
        key = (friction,)
        if key not in self._materials:
            self._materials[key] = self._physx.PhysxMaterial(friction, friction, 0.0)
        return self._materials[key]

    def _give_mass(self, component: Any, group: int, bodies: list[int]) -> F64:
        """Set mass, centre and inertia of welded bodies, and whether gravity pulls; returns the centre of mass."""
        model, mass, moment = self._model, 0.0, np.zeros(3)
        placed = []
        for body in bodies:
            T = inverse(self._T[group]) @ self._T[body] @ matrix_of(model.body_ipos[body], model.body_iquat[body])
            placed.append((float(model.body_mass[body]), T, np.diag(model.body_inertia[body])))
            mass += placed[-1][0]
            moment += placed[-1][0] * T[:3, 3]
        centre, inertia = moment / mass, np.zeros((3, 3))
        for weight, T, own in placed:
            arm = T[:3, 3] - centre
            inertia += T[:3, :3] @ own @ T[:3, :3].T + weight * (arm @ arm * np.eye(3) - np.outer(arm, arm))
        values, axes = np.linalg.eigh(inertia)
        if np.linalg.det(axes) < 0:
            axes[:, 0] = -axes[:, 0]
        component.mass = mass
        component.cmass_local_pose = self._pose(transform(axes, centre))
        component.inertia = values.astype(np.float32)
        component.linear_damping = component.angular_damping = 0.0
        component.disable_gravity = bool(model.body_gravcomp[group] > 0.5)
        return centre

    def _pose(self, T: F64) -> Any:
        return self._sapien.Pose(p=T[:3, 3].astype(np.float32), q=np.array(quaternion_of(T[:3, :3]), np.float32))


def _pose_matrix(position: F64, rotation: F64) -> F64:
    return transform(rotation.reshape(3, 3), position)


def _along(axis: F64) -> F64:
    """(3, 3) a rotation that takes x to `axis`."""
    x = axis / np.linalg.norm(axis)
    side = np.eye(3)[int(np.argmin(np.abs(x)))]
    y = np.cross(side, x)
    y /= np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def _hull(model: Any, mesh: int) -> F64:
    """(V, 3) vertices of a mesh's convex hull, as MuJoCo made it."""
    first, graph = int(model.mesh_vertadr[mesh]), int(model.mesh_graphadr[mesh])
    count = int(model.mesh_graph[graph])
    numbers = model.mesh_graph[graph + 2 + count : graph + 2 + 2 * count]
    return np.array(model.mesh_vert[first + numbers], np.float64)


def _ignored(model: Any) -> dict[int, tuple[int, int]]:
    """Of pairs of bodies that never touch: body → a bit for each of its pairs, and what connected pairs share.

    PhysX overlooks the contacts of two shapes of the same family that have a bit in common.
    """
    weld = np.array(model.body_weldid)
    edges = []
    for signature in model.exclude_signature.tolist():
        one, two = signature >> _IGNORE_BITS, signature & ((1 << _IGNORE_BITS) - 1)
        edges.append((int(weld[one]) or one, int(weld[two]) or two))
    family: dict[int, int] = {}
    for number, (one, two) in enumerate(edges, 1):
        old = {family.get(one, number), family.get(two, number)}
        family.update({body: min(old) for body, value in family.items() if value in old})
        family[one] = family[two] = min(old)
    bits: dict[int, int] = dict.fromkeys(family, 0)
    used: dict[int, int] = {}
    for one, two in edges:
        bit = used.get(family[one], 0)
        if bit >= _MOST_EXCLUDED:
            name = model.body(one).name
            raise AssetError(f"more than {_MOST_EXCLUDED} pairs of bodies around '{name}' are excluded from touching")
        used[family[one]] = bit + 1
        bits[one] |= 1 << bit
        bits[two] |= 1 << bit
    return {body: (bits[body], family[body]) for body in family}

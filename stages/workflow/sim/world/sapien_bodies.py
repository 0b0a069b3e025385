"""The bodies of a world for SAPIEN's physics, from its MuJoCo model: shapes, inertias, joints, servos, what may touch.

Bodies that are welded to each other are one: a static one where they are welded to the world, a free one where they
have a free joint, else a link of an articulation. PhysX computes in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from nimbusd.stages import sapien_package
from nimbusd.stages.errors import AssetError
from nimbusd.stages.types import F64, I32
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.rotation import inverse, transform
from nimbusd.stages.workflow.sim.world.sapien_shapes import Shapes, along, pose

_ITERATIONS = 16, 1
"""Of PhysX's solver per step: positions, velocities."""


def import_sapien() -> Any:
    """The package, for physics. Raises BackendUnavailable."""
    return sapien_package.import_sapien("`simulator: sapien`", "pip install 'nimbusd[sapien]', or simulate with mujoco")


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
    """The bodies of a scene. geom_of: collision shape → geom id."""

    scene: Any
    system: Any
    frees: list[Free]
    trees: list[Tree]
    geom_of: dict[Any, int]


def build_bodies(model: Any) -> Bodies:
    """A new scene with the model's bodies, as in `qpos0`.

    Raises AssetError for joints, shapes and couplings that SAPIEN has no counterpart of.
    """
    return _Builder(model).build()


class _Builder:
    def __init__(self, model: Any) -> None:
        self._sapien, self._mujoco, self._model = import_sapien(), import_mujoco(), model
        self._physx = self._sapien.physx
        self._shapes = Shapes(self._sapien, model)
        self._weld = np.array(model.body_weldid)

    def build(self) -> Bodies:
        physx, model = self._physx, self._model
        for count, what in ((model.neq, "couples joints or bodies"), (model.ntendon, "has tendons")):
            if count:
                raise AssetError(f"the robot {what}, which SAPIEN cannot be told: simulate with mujoco")
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
        return Bodies(scene, system, frees, trees, self._shapes.geom_of)

    # Bodies -----------------------------------------------------------------------------------------------------

    def _add_static(self, scene: Any, body: int) -> None:
        component = self._physx.PhysxRigidStaticComponent()
        if self._shapes.attach(component, body, [body]):
            self._add(scene, component, self._shapes.T[body])

    def _add_free(self, scene: Any, group: int) -> Free:
        model, joint, bodies = self._model, self._joint(group), self._welded(group)
        component = self._physx.PhysxRigidDynamicComponent()
        self._shapes.attach(component, group, bodies)
        centre = self._shapes.give_mass(component, group, bodies)
        component.sleep_threshold = 0.0
        component.solver_position_iterations, component.solver_velocity_iterations = _ITERATIONS
        entity = self._add(scene, component, self._shapes.T[group])
        return Free(component, entity, int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint]), centre)

    def _add_tree(self, scene: Any, root: int, groups: list[int]) -> Tree:
        """An articulation whose links are what moves; what they hang on is static, and stands for itself."""
        model, physx = self._model, self._physx
        base = physx.PhysxArticulationLinkComponent(None)
        base.joint.type = "fixed"
        entity = self._sapien.Entity()
        entity.add_component(base)
        entity.set_pose(pose(self._sapien, self._shapes.T[root]))
        links, entities = {0: base}, [entity]
        for group in groups:
            bodies = self._welded(group)
            parent = int(self._weld[model.body_parentid[group]])
            link = physx.PhysxArticulationLinkComponent(links[parent])
            link.joint.name = str(self._joint(group))
            self._place_joint(link.joint, group, self._shapes.T[parent] if parent else self._shapes.T[root])
            self._shapes.attach(link, group, bodies)
            self._shapes.give_mass(link, group, bodies)
            links[group] = link
            entity = self._sapien.Entity()
            entity.add_component(link)
            entities.append(entity)
        for entity in entities:
            scene.add_entity(entity)
        articulation = base.articulation
        articulation.set_solver_position_iterations(_ITERATIONS[0])
        articulation.set_solver_velocity_iterations(_ITERATIONS[1])
        articulation.set_sleep_threshold(0.0)
        return self._tree(articulation)

    def _tree(self, articulation: Any) -> Tree:
        """Servos and brakes of an articulation. A joint without a servo is braked by PhysX, one with it by us."""
        model, active = self._model, articulation.get_active_joints()
        order = np.array([int(joint.name) for joint in active], np.int32)  # joints of a file may have no names
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
        entity.set_pose(pose(self._sapien, T))
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
        T_link_joint = transform(along(model.jnt_axis[number]), model.jnt_pos[number])
        joint.pose_in_child = pose(self._sapien, T_link_joint)
        joint.pose_in_parent = pose(self._sapien, inverse(T_parent) @ self._shapes.T[group] @ T_link_joint)
        low, high = (-np.inf, np.inf)
        if model.jnt_limited[number]:
            low, high = model.jnt_range[number] - model.qpos0[model.jnt_qposadr[number]]
        joint.limit = np.array([[low, high]], np.float32)

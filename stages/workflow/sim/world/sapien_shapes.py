"""Collision shapes and masses of a world's bodies for SAPIEN's physics, and what may touch."""

from __future__ import annotations

from typing import Any

import numpy as np

from nimbusd.stages.errors import AssetError
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.rotation import inverse, matrix_of, quaternion_of, transform

_CONTACT_M = 0.002
"""Distance from a shape at which its contacts begin to be found; a body at 1 m/s goes 2 mm in a step."""

_MOST_EXCLUDED = 32
_BODY_BITS = 16


class Shapes:
    """Makes the shapes of one scene. T: of each body, `T_world_body` in `qpos0`. geom_of: shape → geom id."""

    def __init__(self, sapien: Any, model: Any) -> None:
        self._sapien, self._model = sapien, model
        mujoco = import_mujoco()
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        self.T = [transform(data.xmat[body].reshape(3, 3), data.xpos[body]) for body in range(model.nbody)]
        self.geom_of: dict[Any, int] = {}
        self._ignored = _ignored(model)
        self._materials: dict[float, Any] = {}

    def attach(self, component: Any, group: int, bodies: list[int]) -> int:
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
            shape.local_pose = pose(self._sapien, inverse(self.T[group]) @ self.T[body] @ T_body_geom @ T_geom_shape)
            shape.set_collision_groups([kind, affinity, bits, family])
            shape.contact_offset = _CONTACT_M
            sliding, turning, _ = model.geom_friction[geom].tolist()
            if sliding > 0:  # PhysX: the moment is two thirds of the radius times the friction's force
                shape.set_patch_radius(1.5 * turning / sliding)
                shape.set_min_patch_radius(1.5 * turning / sliding)
            component.attach(shape)
            self.geom_of[shape] = geom
            count += 1
        return count

    def give_mass(self, component: Any, group: int, bodies: list[int]) -> F64:
        """Set mass, centre and inertia of welded bodies, and whether gravity pulls; returns the centre of mass."""
        model, mass, moment = self._model, 0.0, np.zeros(3)
        placed = []
        for body in bodies:
            T = inverse(self.T[group]) @ self.T[body] @ matrix_of(model.body_ipos[body], model.body_iquat[body])
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
        component.cmass_local_pose = pose(self._sapien, transform(axes, centre))
        component.inertia = values.astype(np.float32)
        component.linear_damping = component.angular_damping = 0.0
        component.disable_gravity = bool(model.body_gravcomp[group] > 0.5)
        return centre

    def _shape(self, geom: int) -> tuple[Any, F64]:
        """A collision shape, and its frame in the geom's: long ones lie along x, MuJoCo's along z."""
        model, kinds, physx = self._model, import_mujoco().mjtGeom, self._sapien.physx
        kind, size = int(model.geom_type[geom]), [float(edge) for edge in model.geom_size[geom]]
        material = self._material(float(model.geom_friction[geom, 0]))
        upright = transform(along(np.array([0.0, 0.0, 1.0])))
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
        if friction not in self._materials:
            self._materials[friction] = self._sapien.physx.PhysxMaterial(friction, friction, 0.0)
        return self._materials[friction]


def pose(sapien: Any, T: F64) -> Any:
    """SAPIEN's pose of a rigid transform."""
    return sapien.Pose(p=T[:3, 3].astype(np.float32), q=np.array(quaternion_of(T[:3, :3]), np.float32))


def along(axis: F64) -> F64:
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
        one, two = signature >> _BODY_BITS, signature & ((1 << _BODY_BITS) - 1)
        edges.append((int(weld[one]) or one, int(weld[two]) or two))
    # What is jointed to a static body does not touch it: PhysX sees to that among links alone.
    for group in sorted(set(weld.tolist()) - {0}):
        if weld[model.body_parentid[group]] == 0:
            root = model.body_rootid[group]
            edges += [(group, int(body)) for body in np.flatnonzero((model.body_rootid == root) & (weld == 0))]
    edges = sorted({(min(pair), max(pair)) for pair in edges})
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

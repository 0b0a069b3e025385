"""Builds the bodies of a layout's objects into a MuJoCo specification.

Names: body `object/<name>`, its joint `object/<name>/joint`, its free joint `object/<name>/free`. Visible geoms are in
group 1, collision shapes in group 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nimbusd.stages.types import U8
from nimbusd.stages.workflow.sim.layout.flooring import picture as picture_of
from nimbusd.stages.workflow.sim.layout.layout import ObjectLayout, Surface
from nimbusd.stages.workflow.sim.models.assets import file_of
from nimbusd.stages.workflow.sim.models.fixtures import (
    DOOR_THICK_M,
    DRAWER_HANDLE_M,
    GRIP_BELOW_M,
    POST_BEFORE_M,
    POST_INSET_M,
    POST_RADIUS_M,
    WALL_M,
    hinge_m,
    hinge_side,
    tray_m,
)
from nimbusd.stages.workflow.sim.models.mesh_parts import convex_parts
from nimbusd.stages.workflow.sim.models.mesh_shape import add_hull, add_mesh, mesh_shape
from nimbusd.stages.workflow.sim.models.objects import ObjectModel
from nimbusd.stages.workflow.sim.rotation import Vector

VISIBLE_GROUP = 1
COLLISION_GROUP = 3


def add_material(spec: Any, name: str, surface: Surface, picture: str | U8 = "", uniform: bool = True) -> str:
    """A material called `name`. picture: a mesh's own texture, a file or (H, W, 3) sRGB, where its look is kept."""
    import mujoco

    material = spec.add_material(name=name, rgba=[*surface.color, 1.0])
    material.specular, material.shininess = surface.gloss, surface.gloss
    role = mujoco.mjtTextureRole.mjTEXROLE_RGB
    if surface.own and isinstance(picture, np.ndarray):
        image = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D)
        image.height, image.width, image.nchannel = picture.shape
        image.data = np.ascontiguousarray(picture).tobytes()
        material.textures[role] = name
    elif surface.own and picture:
        as_encoded(spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, file=picture))
        material.textures[role] = name
    elif surface.texture:
        pixels = picture_of(surface.texture, surface.texture_seed)
        image = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D)
        image.height, image.width = pixels.shape[:2]
        image.nchannel, image.data = 3, np.ascontiguousarray(pixels[::-1]).tobytes()
        material.textures[role] = name
        material.texuniform = uniform
        material.texrepeat = [surface.texture_scale, surface.texture_scale]
    return name


def as_encoded(picture: Any) -> None:
    """Show a texture's values as they are.

    MuJoCo decodes those of files that call themselves sRGB, and shows them without encoding them again: too dark.
    """
    import mujoco

    picture.colorspace = mujoco.mjtColorSpace.mjCOLORSPACE_LINEAR


def add_object(spec: Any, entry: ObjectLayout) -> None:
    """Add one object of the layout with its joints."""
    model = entry.definition
    body = spec.worldbody.add_body(
        name=f"object/{entry.name}", pos=list(entry.pose.position), quat=list(entry.pose.quaternion)
    )
    if not entry.fixed:
        body.add_freejoint(name=f"object/{entry.name}/free")
    picture: str | U8 = ""
    if entry.surface.own and model.shape == "mesh":
        own = mesh_shape(model.mesh, model.unit_m, model.up).picture
        picture = file_of(model.texture) if model.texture else "" if own is None else own
    material = add_material(spec, f"object/{entry.name}", entry.surface, picture)
    _Builder(spec, entry, model, material).build(body)


class _Builder:
    """Adds the geoms of one object."""

    def __init__(self, spec: Any, entry: ObjectLayout, model: ObjectModel, material: str) -> None:
        self._spec, self._entry, self._model, self._material = spec, entry, model, material

    def build(self, body: Any) -> None:
        getattr(self, f"_{self._model.shape}")(body)

    def _box_geom(self, body: Any, centre: Vector, size: Vector, **more: Any) -> Any:
        import mujoco

        return self._geom(body, mujoco.mjtGeom.mjGEOM_BOX, [edge / 2 for edge in size], pos=list(centre), **more)

    def _geom(self, body: Any, kind: Any, size: list[float], **more: Any) -> Any:
        """A geom that is seen and collides."""
        settings: dict[str, Any] = {
            "group": VISIBLE_GROUP,
            "material": self._material,
            "condim": 4,
            "friction": [self._entry.friction, 0.02, 0.001],
            "solref": [0.006, 1.0],
            "solimp": [0.95, 0.995, 0.001, 0.5, 2.0],
        }
        return body.add_geom(type=kind, size=[*size, 0.0, 0.0][:3], **{**settings, **more})

    def _box(self, body: Any) -> None:
        self._box_geom(body, (0, 0, 0), self._entry.size_m, mass=self._entry.mass_kg)

    def _cylinder(self, body: Any, **more: Any) -> None:
        import mujoco

        x, _, z = self._entry.size_m
        self._geom(body, mujoco.mjtGeom.mjGEOM_CYLINDER, [x / 2, z / 2], **{"mass": self._entry.mass_kg, **more})

    def _mesh(self, body: Any) -> None:
        import mujoco

        entry, model = self._entry, self._model
        name = f"object/{entry.name}"
        offset = add_mesh(self._spec, name, model.mesh, model.unit_m, model.up, entry.scale).tolist()
        mesh = mujoco.mjtGeom.mjGEOM_MESH
        body.add_geom(
            type=mesh, meshname=name, pos=offset, group=VISIBLE_GROUP, material=self._material,
            contype=0, conaffinity=0, mass=0.0,
        )  # fmt: skip
        hidden = {"group": COLLISION_GROUP, "mass": entry.mass_kg}
        coarse = mesh_shape(model.mesh, model.unit_m, model.up).coarse
        if model.collision == "hull" and coarse is not None:
            add_hull(self._spec, f"{name}/hull", coarse[0] * entry.scale)
            self._geom(body, mesh, [0.0, 0.0, 0.0], meshname=f"{name}/hull", **hidden)
        elif model.collision == "parts":
            self._parts(body)
        elif model.collision == "hull":
            self._geom(body, mesh, [0.0, 0.0, 0.0], meshname=name, pos=offset, **hidden)
        elif model.collision == "box":
            self._box_geom(body, (0, 0, 0), entry.size_m, **hidden)
        else:
            self._cylinder(body, **hidden)

    def _parts(self, body: Any) -> None:
        import mujoco

        entry, model = self._entry, self._model
        shape = mesh_shape(model.mesh, model.unit_m, model.up)
        parts = convex_parts(*(shape.coarse or (shape.vertices, shape.faces)))
        for number, corners in enumerate(parts):
            name = f"object/{entry.name}/part{number}"
            add_hull(self._spec, name, corners * entry.scale)
            self._geom(
                body, mujoco.mjtGeom.mjGEOM_MESH, [0.0, 0.0, 0.0], meshname=name, group=COLLISION_GROUP,
                mass=entry.mass_kg / len(parts),
            )  # fmt: skip

    def _bin(self, body: Any) -> None:
        x, y, z = self._entry.size_m
        self._box_geom(body, (0, 0, -z / 2 + WALL_M / 2), (x, y, WALL_M))
        for side in (-1, 1):
            self._box_geom(body, (side * (x - WALL_M) / 2, 0, 0), (WALL_M, y, z))
            self._box_geom(body, (0, side * (y - WALL_M) / 2, 0), (x - 2 * WALL_M, WALL_M, z))

    def _joint(self, body: Any, kind: str, axis: Vector, **more: Any) -> None:
        import mujoco

        # A fixture's base is welded to the world, so that MuJoCo does not overlook what slides in it by itself.
        self._spec.add_exclude(bodyname1=f"object/{self._entry.name}", bodyname2=body.name)
        joint_type = mujoco.mjtJoint.mjJNT_SLIDE if kind == "slide" else mujoco.mjtJoint.mjJNT_HINGE
        body.add_joint(
            name=f"object/{self._entry.name}/joint", type=joint_type, axis=list(axis), limited=True,
            range=[0.0, self._model.travel], **more,
        )  # fmt: skip

    def _drawer(self, body: Any) -> None:
        """A cabinet, open at -x, with a drawer that slides out towards -x by its handle."""
        x, y, z = self._entry.size_m
        wall = 2 * WALL_M
        self._box_geom(body, (0, 0, -z / 2 + wall / 2), (x, y, wall))
        self._box_geom(body, (0, 0, z / 2 - wall / 2), (x, y, wall))
        self._box_geom(body, (x / 2 - wall / 2, 0, 0), (wall, y, z - 2 * wall))
        for side in (-1, 1):
            self._box_geom(body, (-wall / 2, side * (y - wall) / 2, 0), (x - wall, wall, z - 2 * wall))
        tray = body.add_body(name=f"object/{self._entry.name}/tray")
        self._joint(tray, "slide", (-1, 0, 0), damping=[6.0, 0.0, 0.0], frictionloss=1.0, armature=0.05)
        inner, centre_x = tray_m(self._entry.size_m)
        part = {"mass": 0.08}
        self._box_geom(tray, (centre_x, 0, -inner[2] / 2 + WALL_M / 2), (inner[0], inner[1], WALL_M), **part)
        for side in (-1, 1):
            self._box_geom(
                tray, (centre_x, side * (inner[1] - WALL_M) / 2, -0.15 * inner[2]),
                (inner[0], WALL_M, 0.7 * inner[2]), **part,
            )  # fmt: skip
            self._box_geom(
                tray, (centre_x + side * (inner[0] - WALL_M) / 2, 0, 0 if side < 0 else -0.15 * inner[2]),
                (WALL_M, inner[1] - 2 * WALL_M, inner[2] if side < 0 else 0.7 * inner[2]), **part,
            )  # fmt: skip
        front = centre_x - inner[0] / 2
        # The handle: an upright plate on a peg, to be gripped from above with one finger behind it.
        self._box_geom(tray, (front - 0.02, 0, 0), (0.04, 0.016, 0.016), **part)
        self._box_geom(tray, (front - DRAWER_HANDLE_M[0], 0, 0.024), (0.018, 0.016, 0.064), **part)

    def _door(self, body: Any) -> None:
        """A cabinet, open at -x, with a door that turns about an upright hinge at its left or right edge."""
        import mujoco

        x, y, z = self._entry.size_m
        wall, depth = 2 * WALL_M, x - DOOR_THICK_M
        middle = DOOR_THICK_M / 2
        for up in (-1, 1):
            self._box_geom(body, (middle, 0, up * (z - wall) / 2), (depth, y, wall))
        self._box_geom(body, ((x - wall) / 2, 0, 0), (wall, y, z - 2 * wall))
        for left in (-1, 1):
            self._box_geom(body, (middle - wall / 2, left * (y - wall) / 2, 0), (depth - wall, wall, z - 2 * wall))
        side = hinge_side(self._model.hinge)
        door = body.add_body(name=f"object/{self._entry.name}/door", pos=list(hinge_m(self._entry.size_m, side)))
        self._joint(door, "hinge", (0, 0, -side), damping=[0.25, 0.0, 0.0], frictionloss=0.15, armature=0.01)
        self._box_geom(
            door, (-DOOR_THICK_M / 2, -side * y / 2, 0), (DOOR_THICK_M, y - 0.002, z - 0.004), mass=0.3
        )  # fmt: skip
        # The handle: an upright post on two pegs. Its round head is gripped from above, and may turn in the fingers.
        post_x, post_y = -DOOR_THICK_M - POST_BEFORE_M, -side * (y - POST_INSET_M)
        low, high = 0.0, z / 2 - GRIP_BELOW_M + 0.02
        colour: dict[str, Any] = {"rgba": [0.2, 0.2, 0.22, 1.0], "material": "", "mass": 0.02}
        self._geom(
            door, mujoco.mjtGeom.mjGEOM_CYLINDER, [POST_RADIUS_M, (high - low) / 2],
            pos=[post_x, post_y, (high + low) / 2], **colour,
        )  # fmt: skip
        for height in (z / 2 - GRIP_BELOW_M - 0.04, low + 0.008):
            peg = (POST_BEFORE_M, 0.012, 0.012)
            self._box_geom(door, (-DOOR_THICK_M - POST_BEFORE_M / 2, post_y, height), peg, **colour)

    def _button(self, body: Any) -> None:
        import mujoco

        x, y, z = self._entry.size_m
        base = z * 0.6
        self._box_geom(body, (0, 0, -z / 2 + base / 2), (x, y, base))
        cap = body.add_body(name=f"object/{self._entry.name}/cap", pos=[0.0, 0.0, -z / 2 + base])
        self._joint(cap, "slide", (0, 0, -1), stiffness=250.0, damping=[8.0, 0.0, 0.0], armature=0.01)
        height = z - base
        self._geom(
            cap, mujoco.mjtGeom.mjGEOM_CYLINDER, [0.32 * x, height / 2], pos=[0.0, 0.0, height / 2], mass=0.03,
            rgba=[0.85, 0.12, 0.1, 1.0], material="",
        )  # fmt: skip

    def _knob(self, body: Any) -> None:
        import mujoco

        x, y, z = self._entry.size_m
        base = z * 0.4
        self._box_geom(body, (0, 0, -z / 2 + base / 2), (x, y, base))
        dial = body.add_body(name=f"object/{self._entry.name}/dial", pos=[0.0, 0.0, -z / 2 + base])
        self._joint(dial, "hinge", (0, 0, 1), damping=[0.02, 0.0, 0.0], frictionloss=0.02, armature=0.002)
        height = z - base
        colour: dict[str, Any] = {"rgba": [0.2, 0.2, 0.22, 1.0], "material": "", "mass": 0.03}
        self._geom(dial, mujoco.mjtGeom.mjGEOM_CYLINDER, [0.4 * x, 0.004], pos=[0.0, 0.0, 0.005], **colour)
        self._box_geom(dial, (0, 0, height / 2 + 0.004), (0.7 * x, 0.018, height - 0.008), **colour)

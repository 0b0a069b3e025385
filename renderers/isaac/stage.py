"""Authors a `Scene` as a USD stage, K copies of it side by side, and moves what a sequence moves.

It uses USD (`pxr`) alone: inside Isaac Sim its own, in tests the one of `usd-core`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nimbusd.renderers.isaac.geometry import NEAR_M, UsdMeshPart, light_intensity, mesh_parts, usd_camera
from nimbusd.renderers.isaac.read import object_path
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import F64, U8, Camera, Light, Material, Scene, SceneObject

_LOOKS = "/World/looks"
_LENS = "OmniLensDistortionOpenCvPinholeAPI"


class StageScene:
    """A scene's prims on an open, empty stage.

    Objects are `/World/copy_<k>/obj_<instance id>`, further parts of an instance `…_1`, `…_2`, with the meshes `solid`
    and `glass` below; lamps stand in every copy, the sun and the sky once. Cameras are
    `/World/cameras/copy_<k>_<number>`.
    textures: a folder for images; their names follow from their pixels, since renderers remember images by path.
    """

    def __init__(self, stage: Any, scene: Scene, copies: int, textures: Path, lumens_per_watt: float = 1.0) -> None:
        from pxr import UsdGeom

        self.stage = stage
        self.copies = copies
        self._scene = scene
        self._textures = textures
        self._lumens_per_watt = lumens_per_watt
        self._materials: dict[tuple[object, ...], Any] = {}
        self._poses: dict[tuple[int, str], Any] = {}
        self._glass: list[Any] = []
        self._moved: dict[int, set[str]] = {}
        self._rest = {obj.name: obj.T_world_object for obj in scene.objects}
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
        stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/World").GetPrim())
        UsdGeom.Scope.Define(stage, _LOOKS)
        UsdGeom.Scope.Define(stage, "/World/cameras")
        self._roots = [self._add_copy(copy) for copy in range(copies)]
        self._add_sky()

    @property
    def has_glass(self) -> bool:
        return bool(self._glass)

    def place_copies(self, offsets: list[tuple[float, float, float]]) -> None:
        """Put copy k at offsets[k], in metres; copies without an offset are hidden."""
        from pxr import UsdGeom

        for copy, (prim, pose) in enumerate(self._roots):
            UsdGeom.Imageable(prim).MakeInvisible() if copy >= len(offsets) else UsdGeom.Imageable(prim).MakeVisible()
            if copy < len(offsets):
                T = np.eye(4)
                T[:3, 3] = offsets[copy]
                pose.Set(_matrix(T))

    def place_objects(self, copy: int, T_world_object: Mapping[str, F64]) -> None:
        """Move a copy's objects to (4, 4) poses in our world; those moved before and not named go back."""
        for name in self._moved.get(copy, set()) - set(T_world_object):
            self._poses[copy, name].Set(_matrix(self._rest[name]))
        for name, T in T_world_object.items():
            self._poses[copy, name].Set(_matrix(T))
        self._moved[copy] = set(T_world_object)

    def add_camera(self, copy: int, number: int, camera: Camera, far_m: float) -> tuple[str, Any]:
        """A camera's prim path, and its pose attribute for `aim`.

        Raises RenderError for one that needs a lens which this version of Isaac Sim does not have.
        """
        from pxr import Gf, UsdGeom

        path = f"/World/cameras/copy_{copy}_{number}"
        prim, numbers = UsdGeom.Camera.Define(self.stage, path), usd_camera(camera)
        prim.CreateFocalLengthAttr(numbers.focal_length)
        prim.CreateHorizontalApertureAttr(numbers.horizontal_aperture)
        prim.CreateVerticalApertureAttr(numbers.vertical_aperture)
        prim.CreateHorizontalApertureOffsetAttr(numbers.horizontal_offset)
        prim.CreateVerticalApertureOffsetAttr(numbers.vertical_offset)
        prim.CreateClippingRangeAttr(Gf.Vec2f(NEAR_M, far_m))
        prim.CreateFStopAttr(0.0)  # everything is in focus
        if numbers.lens:
            _add_lens(prim.GetPrim(), camera)
        return path, _pose(prim)

    def remove_cameras(self) -> None:
        from pxr import UsdGeom

        self.stage.RemovePrim("/World/cameras")
        UsdGeom.Scope.Define(self.stage, "/World/cameras")

    def show_glass(self, shown: bool) -> None:
        """Show or hide every surface that depth and segmentation see through."""
        for mesh in self._glass:
            mesh.MakeVisible() if shown else mesh.MakeInvisible()

    def _add_copy(self, copy: int) -> tuple[Any, Any]:
        from pxr import UsdGeom

        root = UsdGeom.Xform.Define(self.stage, f"/World/copy_{copy}")
        pose = _pose(root)
        parts: Counter[int] = Counter()
        for obj in self._scene.objects:
            self._add_object(obj, copy, parts[obj.instance_id])
            parts[obj.instance_id] += 1
        for number, light in enumerate(self._scene.lights):
            if light.kind != "sun":
                self._add_light(f"/World/copy_{copy}/light_{number}", light)
            elif copy == 0:
                self._add_light(f"/World/sun_{number}", light)
        return root.GetPrim(), pose

    def _add_object(self, obj: SceneObject, copy: int, number: int) -> None:
        from pxr import UsdGeom, UsdSemantics

        path = object_path(copy, obj.instance_id, number)
        xform = UsdGeom.Xform.Define(self.stage, path)
        xform.GetPrim().SetDisplayName(obj.name)
        UsdSemantics.LabelsAPI.Apply(xform.GetPrim(), "class").CreateLabelsAttr([obj.category])
        self._poses[copy, obj.name] = _pose(xform)
        self._poses[copy, obj.name].Set(_matrix(obj.T_world_object))
        for part in mesh_parts(obj):
            mesh = self._add_mesh(f"{path}/{'glass' if part.glass else 'solid'}", part, obj)
            if part.glass:
                self._glass.append(UsdGeom.Imageable(mesh))

    def _add_mesh(self, path: str, part: UsdMeshPart, obj: SceneObject) -> Any:
        from pxr import Sdf, UsdGeom, UsdShade, Vt

        mesh = UsdGeom.Mesh.Define(self.stage, path)
        mesh.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(part.points))
        mesh.CreateFaceVertexCountsAttr(Vt.IntArray(len(part.indices) // 3, 3))
        mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(part.indices))
        mesh.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(part.normals))
        mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex if obj.smooth else UsdGeom.Tokens.faceVarying)
        mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
        mesh.CreateDoubleSidedAttr(True)
        mesh.CreateExtentAttr(UsdGeom.PointBased.ComputeExtent(mesh.GetPointsAttr().Get()))
        if part.st is not None:
            st = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar(
                "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.faceVarying
            )
            st.Set(Vt.Vec2fArray.FromNumpy(part.st))
        if len(part.subsets) == 1:
            UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(
                self._material(obj.materials[next(iter(part.subsets))])
            )
            return mesh
        binding = UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim())
        for slot, faces in part.subsets.items():
            subset = binding.CreateMaterialBindSubset(f"slot_{slot}", Vt.IntArray.FromNumpy(faces))
            UsdShade.MaterialBindingAPI.Apply(subset.GetPrim()).Bind(self._material(obj.materials[slot]))
        return mesh

    def _material(self, material: Material) -> Any:
        from pxr import Gf, Sdf, UsdShade

        look = (material.base_color, material.roughness, material.metallic, material.emission, material.opacity)
        key = (*look, None if material.texture is None else id(material.texture))
        if key in self._materials:
            return self._materials[key]
        path = f"{_LOOKS}/material_{len(self._materials)}"
        made = UsdShade.Material.Define(self.stage, path)
        surface = UsdShade.Shader.Define(self.stage, f"{path}/surface")
        surface.CreateIdAttr("UsdPreviewSurface")
        types, color = Sdf.ValueTypeNames, Gf.Vec3f(*material.base_color)
        surface.CreateInput("roughness", types.Float).Set(material.roughness)
        surface.CreateInput("metallic", types.Float).Set(material.metallic)
        surface.CreateInput("opacity", types.Float).Set(material.opacity)
        surface.CreateInput("emissiveColor", types.Color3f).Set(color * (material.emission * self._lumens_per_watt))
        diffuse = surface.CreateInput("diffuseColor", types.Color3f)
        if material.texture is None:
            diffuse.Set(color)
        else:
            diffuse.ConnectToSource(self._texture(path, material.texture, color))
        made.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
        self._materials[key] = made
        return made

    def _texture(self, path: str, pixels: U8, color: Any) -> Any:
        """The output of a shader that reads an image at primvar `st`, times a colour."""
        from pxr import Gf, Sdf, UsdShade

        name = hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
        target = self._textures / f"{name[:32]}.png"
        if not target.exists():
            Image.fromarray(np.ascontiguousarray(pixels)).save(target, compress_level=1)
        types = Sdf.ValueTypeNames
        reader = UsdShade.Shader.Define(self.stage, f"{path}/st")
        reader.CreateIdAttr("UsdPrimvarReader_float2")
        reader.CreateInput("varname", types.String).Set("st")
        image = UsdShade.Shader.Define(self.stage, f"{path}/image")
        image.CreateIdAttr("UsdUVTexture")
        image.CreateInput("file", types.Asset).Set(Sdf.AssetPath(str(target)))
        image.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
        image.CreateInput("wrapS", types.Token).Set("repeat")
        image.CreateInput("wrapT", types.Token).Set("repeat")
        image.CreateInput("scale", types.Float4).Set(Gf.Vec4f(*color, 1.0))
        image.CreateInput("st", types.Float2).ConnectToSource(reader.CreateOutput("result", types.Float2))
        return image.CreateOutput("rgb", types.Float3)

    def _add_light(self, path: str, light: Light) -> None:
        from pxr import Gf, UsdLux

        kind = {"point": UsdLux.SphereLight, "area": UsdLux.RectLight, "sun": UsdLux.DistantLight}[light.kind]
        lamp = kind.Define(self.stage, path)
        if light.kind == "point":
            lamp.CreateRadiusAttr(light.size_m[0] / 2)
        elif light.kind == "area":
            lamp.CreateWidthAttr(light.size_m[0])
            lamp.CreateHeightAttr(light.size_m[1])
        lamp.CreateNormalizeAttr(True)
        lamp.CreateIntensityAttr(light_intensity(light, self._lumens_per_watt))
        lamp.CreateColorAttr(Gf.Vec3f(*light.color))
        _pose(lamp).Set(_matrix(light.T_world_light))

    def _add_sky(self) -> None:
        from pxr import Gf, UsdLux

        if self._scene.sky_strength > 0:
            sky = UsdLux.DomeLight.Define(self.stage, "/World/sky")
            sky.CreateIntensityAttr(self._scene.sky_strength * self._lumens_per_watt)
            sky.CreateColorAttr(Gf.Vec3f(*self._scene.sky_color))


def has_lens() -> bool:
    """True where this USD has RTX's lens for cameras as OpenCV has them: Isaac Sim's does, from version 5.1 on."""
    from pxr import Usd

    return Usd.SchemaRegistry().FindAppliedAPIPrimDefinition(_LENS) is not None


def _add_lens(prim: Any, camera: Camera) -> None:
    """Give a camera the lens by which RTX takes its matrix: any principal point, any aspect of pixels."""
    from pxr import Gf, Sdf

    if not has_lens():
        raise RenderError(
            f"camera {camera.name!r} has its principal point off the centre, or pixels that are not square, and this "
            f"Isaac Sim has no lens for that ({_LENS}, from version 5.1 on): choose cx = width / 2, cy = height / 2 "
            f"and fx = fy, or another renderer"
        )
    prim.AddAppliedSchema(_LENS)
    types, name = Sdf.ValueTypeNames, "omni:lensdistortion:opencvPinhole"
    prim.CreateAttribute("omni:lensdistortion:model", types.Token).Set("opencvPinhole")
    prim.CreateAttribute(f"{name}:imageSize", types.Int2).Set(Gf.Vec2i(camera.width, camera.height))
    for key in ("fx", "fy", "cx", "cy"):
        prim.CreateAttribute(f"{name}:{key}", types.Float).Set(float(getattr(camera, key)))
    for key in ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "s1", "s2", "s3", "s4"):
        prim.CreateAttribute(f"{name}:{key}", types.Float).Set(0.0)


def aim(pose: Any, T_world_camera: F64, offset_m: tuple[float, float, float]) -> None:
    """Give a camera of a copy at `offset_m` a pose of our world; USD's cameras have our axes."""
    T = np.array(T_world_camera, np.float64)
    T[:3, 3] += offset_m
    pose.Set(_matrix(T))


def _pose(schema: Any) -> Any:
    """The one transform of a prim, to be set again and again."""
    from pxr import UsdGeom

    return UsdGeom.Xformable(schema).MakeMatrixXform()


def _matrix(T: F64) -> Any:
    """USD multiplies row vectors from the left, so its matrices are transposed."""
    from pxr import Gf

    return Gf.Matrix4d(np.asarray(T, np.float64).T.tolist())

"""Random glTF files: trees of nodes, instances, skins and morphs, in many ways of writing numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from nimbusd.stages.load.mesh.gltf.support import EXTENSIONS
from nimbusd.stages.load.mesh.part import linear_values
from nimbusd.stages.types import F64
from tests.support.fuzz_meshes import Made
from tests.support.gltf_files import GltfFile


@dataclass
class _Mesh:
    """number: of the mesh in the file; skin, if it has to be used with one. triangles, colors: in its own frame."""

    number: int
    triangles: F64
    colors: F64
    skin: int | None = None


class _Writer:
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.file = GltfFile()
        self.features: set[str] = set()
        self.triangles: list[F64] = []
        self.colors: list[F64] = []

    def chance(self, probability: float, feature: str) -> bool:
        """True if something is to be done this time; it is counted."""
        found = bool(self.rng.random() < probability)
        if found:
            self.features.add(feature)
        return found

    def use(self, extension: str) -> None:
        if extension not in self.file.json.get("extensionsUsed", []):
            self.file.extension(extension, required=bool(self.rng.random() < 0.5))
            self.features.add(extension)

    def require(self, extension: str) -> None:
        if extension not in self.file.json.get("extensionsUsed", []):
            self.file.extension(extension)
            self.features.add(extension)

    def nodes(self, meshes: list[_Mesh], T_file_parent: F64, depth: int, *, shown: bool = True) -> list[int]:
        numbers = []
        for _ in range(int(self.rng.integers(1, 4))):
            entry, T_parent_node = self._transform()
            T = T_file_parent @ T_parent_node
            visible = shown
            if self.chance(0.05, "hidden nodes"):
                self.use("KHR_node_visibility")
                entry["extensions"] = {"KHR_node_visibility": {"visible": False}}
                visible = False
            if self.rng.random() < 0.8:
                mesh = meshes[int(self.rng.integers(len(meshes)))]
                entry["mesh"] = mesh.number
                self._place(entry, mesh, T, visible)
            if depth < 3 and self.rng.random() < 0.4:
                entry["children"] = self.nodes(meshes, T, depth + 1, shown=visible)
            numbers.append(self.file.add("nodes", **entry))
        return numbers

    def _place(self, entry: dict[str, Any], mesh: _Mesh, T: F64, visible: bool) -> None:
        if mesh.skin is not None:
            entry["skin"] = mesh.skin
            self._show(mesh, np.eye(4), visible)
        elif self.chance(0.15, "instances"):
            self.require("EXT_mesh_gpu_instancing")
            count = int(self.rng.integers(1, 6))
            places = [self._values() for _ in range(count)]
            attributes = {"TRANSLATION": self.file.array([p[0] for p in places])}
            turned = self.rng.random() < 0.7
            if turned:
                attributes["ROTATION"] = self.file.array([p[1] for p in places])
            scaled = self.rng.random() < 0.7
            if scaled:
                attributes["SCALE"] = self.file.array([p[2] for p in places])
            entry.setdefault("extensions", {})["EXT_mesh_gpu_instancing"] = {"attributes": attributes}
            for shift, turn, scale in places:
                given = (shift, turn if turned else np.array((0.0, 0, 0, 1)), scale if scaled else np.ones(3))
                self._show(mesh, T @ _matrix(*given), visible)
        else:
            self._show(mesh, T, visible)

    def _show(self, mesh: _Mesh, T: F64, visible: bool) -> None:
        if not visible:
            return
        moved = mesh.triangles @ T[:3, :3].T + T[:3, 3]
        if np.linalg.det(T[:3, :3]) < 0:
            moved = moved[:, ::-1]
            self.features.add("mirrored")
        self.triangles.append(moved)
        self.colors.append(mesh.colors)

    def _values(self) -> tuple[F64, F64, F64]:
        """Shift, quaternion x, y, z, w, and scale, some of them mirroring, as single precision holds them."""
        shift = self.rng.uniform(-10, 10, 3).astype(np.float32)
        turn = Rotation.random(random_state=int(self.rng.integers(1 << 30))).as_quat().astype(np.float32)
        scale = (self.rng.uniform(0.3, 2, 3) * self.rng.choice([1, 1, 1, -1], 3)).astype(np.float32)
        return shift.astype(np.float64), turn.astype(np.float64), scale.astype(np.float64)

    def _transform(self) -> tuple[dict[str, Any], F64]:
        shift, turn, scale = self._values()
        if self.chance(0.3, "matrices"):
            T = _matrix(shift, turn, scale)
            return {"matrix": T.T.ravel().tolist()}, T
        entry: dict[str, Any] = {}
        used = [np.zeros(3), np.array((0.0, 0, 0, 1)), np.ones(3)]
        for slot, (key, value) in enumerate((("translation", shift), ("rotation", turn), ("scale", scale))):
            if self.rng.random() < 0.8:
                entry[key], used[slot] = value.tolist(), value
        return entry, _matrix(*used)

    def mesh(self) -> _Mesh:
        primitives, triangles, colors = [], [], []
        morphs = int(self.rng.integers(1, 3)) if self.chance(0.15, "morph targets") else 0
        weights = self.rng.uniform(-1, 1, morphs)
        joints = self._skin() if not morphs and self.chance(0.12, "skins") else None
        for _ in range(int(self.rng.integers(1, 4))):
            entry, found = self._primitive(weights, None if joints is None else joints[1])
            primitives.append(entry)
            triangles.append(found)
            colors.append(np.tile(self._look(entry), (len(found), 1)))
        if self.chance(0.1, "points and lines"):
            primitives.append({"attributes": primitives[0]["attributes"], "mode": int(self.rng.integers(0, 4))})
            if "extensions" in primitives[0]:
                primitives.pop()
        mesh = self.file.add("meshes", primitives=primitives, **({"weights": weights.tolist()} if morphs else {}))
        skin = None if joints is None else joints[0]
        return _Mesh(mesh, np.concatenate(triangles), np.concatenate(colors), skin)

    def _skin(self) -> tuple[int, F64]:
        """A skin of joints outside the scene's tree, and what each does to a vertex, (J, 4, 4)."""
        joints, matrices = [], []
        for _ in range(int(self.rng.integers(1, 4))):
            entry, T = self._transform()
            joints.append(self.file.add("nodes", **entry))
            matrices.append(T)
        inverse = np.stack([np.linalg.inv(_matrix(*self._values())) for _ in joints]).astype(np.float32)
        skin: dict[str, Any] = {"joints": joints}
        moved = np.stack(matrices)
        if self.rng.random() < 0.8:
            skin["inverseBindMatrices"] = self.file.array(inverse.transpose(0, 2, 1).reshape(-1, 16))
            moved = moved @ inverse.astype(np.float64)
        return self.file.add("skins", **skin), moved

    def _primitive(self, weights: F64, joints: F64 | None) -> tuple[dict[str, Any], F64]:
        """A primitive and its triangles (F, 3, 3) at rest in the mesh's frame."""
        rng = self.rng
        count = int(rng.integers(3, 30))
        vertices = rng.uniform(-3, 3, (count, 3)).astype(np.float32).astype(np.float64)
        mode = int(rng.choice([4, 4, 4, 5, 6]))
        faces = rng.permuted(np.tile(np.arange(count), (int(rng.integers(1, 20)), 1)), axis=1)[:, :3]
        indices = faces.ravel() if mode == 4 else rng.permutation(count)
        entry: dict[str, Any] = {"mode": mode} if mode != 4 or rng.random() < 0.5 else {}
        if mode != 4:
            self.features.add("strips and fans")
        packed = joints is None and not len(weights) and mode == 4
        if packed and self.chance(0.1, "Draco"):
            return entry | self._draco(vertices, faces), vertices[faces]
        position, vertices = self._positions(vertices, plain=not packed)
        entry["attributes"] = {"POSITION": position}
        if self.chance(0.25, "no indices"):
            chosen = indices if mode == 4 else np.arange(count)
            if mode == 4:
                vertices = vertices[chosen]
                entry["attributes"]["POSITION"] = self.file.array(vertices)
                chosen = np.arange(len(vertices))
            indices = chosen
        else:
            entry["indices"] = self._indices(indices, triangles=mode == 4)
        if len(weights):
            deltas = rng.uniform(-1, 1, (len(weights), len(vertices), 3)).astype(np.float32)
            entry["targets"] = [{"POSITION": self.file.array(delta)} for delta in deltas]
            vertices = vertices + np.einsum("k,kvc->vc", weights, deltas.astype(np.float64))
        if joints is not None:
            vertices = self._skinned(entry, vertices, joints)
        return entry, vertices[_faces(indices, mode)]

    def _skinned(self, entry: dict[str, Any], vertices: F64, joints: F64) -> F64:
        which = self.rng.integers(0, len(joints), (len(vertices), 4))
        share = self.rng.integers(1, 100, (len(vertices), 4)).astype(np.float64)
        share /= share.sum(axis=1, keepdims=True)
        entry["attributes"]["JOINTS_0"] = self.file.array(which, str(self.rng.choice(["u1", "u2"])))
        entry["attributes"]["WEIGHTS_0"] = self.file.array(share)
        whole = np.c_[vertices, np.ones(len(vertices))]
        return np.asarray(np.einsum("vk,vkij,vj->vi", share, joints[which], whole)[:, :3])

    def _positions(self, vertices: F64, *, plain: bool) -> tuple[int, F64]:
        """An accessor, and the values that it holds."""
        kind = self.rng.integers(6)
        if plain or kind < 2:
            return self.file.array(vertices), vertices
        if kind == 2:
            self.features.add("interleaved")
            return self.file.array(vertices, stride=int(self.rng.choice([16, 24, 36]))), vertices
        if kind == 3:
            self.require("KHR_mesh_quantization")
            unit = np.clip(np.rint(vertices / 3 * 32767), -32767, 32767)
            if self.rng.random() < 0.5:
                return self.file.array(unit, "i2", stride=8, normalized=True), unit / 32767
            return self.file.array(np.rint(vertices * 10), "i1", stride=4), np.rint(vertices * 10)
        if kind == 4:
            self.require("EXT_meshopt_compression")
            return self._meshopt(vertices.astype("<f4"), "ATTRIBUTES", 3, "f4"), vertices
        self.features.add("sparse")
        base = self.rng.random() < 0.5
        held = np.where(self.rng.random((len(vertices), 1)) < 0.5, vertices, 0.0)
        rows = np.flatnonzero((held != vertices).any(axis=1) if base else np.ones(len(vertices), bool))
        if not len(rows):
            return self.file.array(vertices), vertices
        sparse = {
            "count": len(rows),
            "indices": {"bufferView": self.file.view(rows.astype("<u2").tobytes()), "componentType": 5123},
            "values": {"bufferView": self.file.view(vertices[rows].astype("<f4").tobytes())},
        }
        if base:
            return self.file.array(held, sparse=sparse), vertices
        return self.file.accessor(len(vertices), 3, sparse=sparse), vertices

    def _indices(self, indices: Any, *, triangles: bool) -> int:
        kind = str(self.rng.choice(["u1", "u2", "u4"]))
        if kind != "u1" and self.chance(0.1, "packed indices"):
            self.require("EXT_meshopt_compression")
            mode = "TRIANGLES" if triangles and self.rng.random() < 0.5 else "INDICES"
            if mode == "INDICES":
                return self._meshopt(indices.astype(f"<{kind}"), mode, 1, kind)
        return self.file.array(indices, kind)

    def _meshopt(self, rows: Any, mode: Any, width: int, kind: str) -> int:
        import meshopt

        blob = meshopt.encode_gltf_buffer(rows, mode)
        size = rows.nbytes // len(rows)
        at = self.file.json["bufferViews"][self.file.view(blob)]["byteOffset"]
        packed = {"buffer": 0, "byteOffset": at, "byteLength": len(blob), "byteStride": size, "count": len(rows)}
        if not self.file.json.get("buffers"):
            fallback = {"EXT_meshopt_compression": {"fallback": True}}
            self.file.json["buffers"] = [{"byteLength": 1 << 16, "extensions": fallback}]
        view: dict[str, Any] = {"buffer": 1, "byteLength": rows.nbytes}
        view["extensions"] = {"EXT_meshopt_compression": {**packed, "mode": mode}}
        if mode == "ATTRIBUTES":
            view["byteStride"] = size
        return self.file.accessor(len(rows), width, kind, bufferView=self.file.add("bufferViews", **view))

    def _draco(self, vertices: F64, faces: Any) -> dict[str, Any]:
        import DracoPy

        self.require("KHR_draco_mesh_compression")
        blob = DracoPy.encode(vertices, faces.astype(np.uint32), quantization_bits=20, preserve_order=True)
        number = DracoPy.decode(blob).get_attribute_by_type(0)["unique_id"]
        packed = {"bufferView": self.file.view(blob), "attributes": {"POSITION": number}}
        return {
            "attributes": {"POSITION": self.file.accessor(len(vertices), 3)},
            "indices": self.file.accessor(faces.size, 1, "u4"),
            "extensions": {"KHR_draco_mesh_compression": packed},
        }

    def _look(self, entry: dict[str, Any]) -> F64:
        """Give the primitive a material, or none; the linear colour that its faces show."""
        rng, shown = self.rng, self.rng.integers(0, 8, 3) * 36
        linear = linear_values(shown / 255)
        kind = int(rng.integers(6))
        drawn = entry.get("extensions") is None
        if kind == 0 or (not drawn and kind > 1):
            return np.ones(3)
        if kind == 1:
            pbr: dict[str, Any] = {"baseColorFactor": [*linear.tolist(), 1.0]}
            entry["material"] = self.file.add(
                "materials", pbrMetallicRoughness=pbr, doubleSided=bool(rng.random() < 0.5)
            )
            return linear
        vertices = self.file.json["accessors"][entry["attributes"]["POSITION"]]["count"]
        if kind == 2:
            self.features.add("colours of vertices")
            entry["attributes"]["COLOR_0"] = self._vertex_colors(linear, vertices)
            return linear
        factor = rng.uniform(0.5, 1, 3)
        uv_set = int(rng.integers(2))
        uvs = rng.uniform(-1, 2, (vertices, 2)).astype(np.float32)
        entry["attributes"]["TEXCOORD_0"] = self.file.array(np.zeros((vertices, 2)))
        entry["attributes"][f"TEXCOORD_{uv_set}"] = self.file.array(uvs)
        reference: dict[str, Any] = {"index": self._texture(shown), "texCoord": uv_set}
        if self.chance(0.3, "texture transforms"):
            self.use("KHR_texture_transform")
            turn = {"offset": rng.uniform(-1, 1, 2).tolist(), "rotation": float(rng.uniform(-3, 3)), "scale": [2, 0.5]}
            reference["extensions"] = {"KHR_texture_transform": turn}
        pbr = {"baseColorTexture": reference, "baseColorFactor": [*factor.tolist(), 1.0]}
        entry["material"] = self.file.add("materials", pbrMetallicRoughness=pbr)
        if kind == 5:
            self.features.add("colours of vertices with textures")
            tint = linear_values(rng.integers(2, 8, 3) * 36 / 255)
            entry["attributes"]["COLOR_0"] = self._vertex_colors(tint, vertices)
            factor = factor * tint
        return linear * factor

    def _vertex_colors(self, linear: F64, count: int) -> int:
        kind, wide = str(self.rng.choice(["u1", "u2", "f4"])), bool(self.rng.random() < 0.5)
        top = {"u1": 255, "u2": 65535, "f4": 1}[kind]
        rows = np.tile([*linear, 1.0][: 4 if wide else 3], (count, 1)) * top
        if kind == "f4":
            return self.file.array(rows)
        return self.file.array(np.rint(rows), kind, stride=4 if kind == "u1" else 8, normalized=True)

    def _texture(self, shown: Any) -> int:
        pixels = np.full((4, 4, 3), shown, np.uint8)
        form = str(self.rng.choice(["PNG", "PNG", "WEBP"]))
        if form == "WEBP":
            self.require("EXT_texture_webp")
            image = len(self.file.json.get("images", []))
            texture = self.file.picture(pixels, "WEBP", extensions={"EXT_texture_webp": {"source": image}})
        else:
            texture = self.file.picture(pixels)
        if self.chance(0.4, "samplers"):
            wraps = {key: int(self.rng.choice([10497, 33648, 33071])) for key in ("wrapS", "wrapT")}
            self.file.json["textures"][texture]["sampler"] = self.file.add("samplers", **wraps)
        return texture


def make_gltf(rng: np.random.Generator, path: Path) -> Made:
    """A scene of nodes; one in twelve requires what is not supported."""
    writer = _Writer(rng)
    meshes = [writer.mesh() for _ in range(int(rng.integers(1, 5)))]
    roots: list[int] = []
    while not writer.triangles:
        roots += writer.nodes(meshes, np.eye(4), 0)
    first: list[dict[str, Any]] = [{"nodes": []}] if writer.chance(0.3, "several scenes") else []
    writer.file.json["scenes"] = [*first, {"nodes": roots}]
    if first:
        writer.file.add("nodes", mesh=0, name="elsewhere")
        writer.file.json["scenes"][0]["nodes"] = [len(writer.file.json["nodes"]) - 1]
    if first or rng.random() < 0.5:
        writer.file.json["scene"] = len(first)
    refused = ""
    if rng.random() < 1 / 12:
        told = [name for name, support in EXTENSIONS.items() if support.verdict == "told"]
        refused = str(rng.choice([*told, "XYZ_not_known"]))
        if refused in writer.file.json.get("extensionsUsed", []):
            refused = "XYZ_not_known"
        writer.file.extension(refused)
        writer.features = {"refused"}
    elif rng.random() < 0.3:
        writer.file.extension("KHR_materials_ior", required=False)
    writer.file.save(path)
    if path.suffix == ".gltf" and rng.random() < 0.5:
        _move_out(path, writer.file)
        writer.features.add("files beside")
    features = {path.suffix[1:]} | writer.features
    return Made(
        path, np.concatenate(writer.triangles), np.concatenate(writer.colors), refused=refused, features=features
    )


def _move_out(path: Path, file: GltfFile) -> None:
    """Put the buffer and the pictures into files of their own, with spaces in their names."""
    document = json.loads(path.read_text())
    blob = bytes(file.blob)
    (path.parent / "all numbers.bin").write_bytes(blob)
    document["buffers"][0]["uri"] = "all%20numbers.bin"
    for number, image in enumerate(document.get("images", [])):
        view = document["bufferViews"][image.pop("bufferView")]
        form = image.pop("mimeType").split("/")[1]
        name = f"picture {number}.{form}"
        (path.parent / name).write_bytes(blob[view["byteOffset"] : view["byteOffset"] + view["byteLength"]])
        with Image.open(path.parent / name) as picture:
            picture.verify()
        image["uri"] = name.replace(" ", "%20")
    path.write_text(json.dumps(document))


def _matrix(shift: F64, turn: F64, scale: F64) -> F64:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(turn).as_matrix() @ np.diag(scale)
    T[:3, 3] = shift
    return T


def _faces(indices: Any, mode: int) -> Any:
    """(F, 3), one by one, as the specification draws them."""
    if mode == 4:
        return np.reshape(indices, (-1, 3))
    found = []
    for k in range(len(indices) - 2):
        if mode == 6:
            found.append((indices[k + 1], indices[k + 2], indices[0]))
        else:
            found.append((indices[k], indices[k + 1 + k % 2], indices[k + 2 - k % 2]))
    return np.array(found)

"""Surfaces that lie in each other: of two that are the same one is removed, others are told.

Two sheets at the same place shadow each other, so that a renderer shows both of them black or speckled, and which of
them a ray meets is chance. Files have them where an exporter wrote something twice (a floor of both its storeys, an
object with its collision copy, the front and the back of a sheet).

- The same triangle twice, in whatever order its corners are: one goes, also where one faces the other way.
- The same surface twice in other triangles (a rectangle cut along the other diagonal): one goes.
- A triangle that lies within a surface of the same material: it goes.
- A surface that lies partly in another one that faces the same way: both stay, and the overlap is told.

Where a closed body touches something that faces it, the two are in contact (a box on a floor), hidden from everybody,
and stay. What may be moved by a randomizer keeps all its faces. Of two that face opposite ways the one that faces up is
kept (of a ceiling: down).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nimbusd.stages.load.mend.triangles import MIX, SAME_M, IntArray, Triangles, point_ids, triangles_of
from nimbusd.stages.types import F64, BoolArray, SceneObject

_SAME_COS = 1 - 1e-6
_LEAST_M2 = 1e-3
"""Smaller triangles are looked at only for copies with the same corners."""

_COVERED = 0.99
_MOST_PAIRS = 100_000
_TOLD_M2 = 0.1
_NORMAL_CELL = 0.01
_PLANE_CELL_M = 0.002


def without_copies(objects: Sequence[SceneObject]) -> tuple[list[SceneObject], list[str]]:
    """The objects without triangles that have the corners of another one, and a sentence if there were any."""
    if not any(len(obj.faces) for obj in objects):
        return list(objects), []
    triangles = triangles_of(objects)
    copies = _copies(triangles)
    return _without(objects, copies), _told(objects, triangles, copies, [])


def without_coincident(
    objects: Sequence[SceneObject], beat: Callable[[], None] = lambda: None
) -> tuple[list[SceneObject], list[str]]:
    """The objects without what lies in them twice, and a sentence for each kind of what was found.

    Objects that lose nothing are returned as they are; one that loses all its faces is left out. Takes about a second
    for 200,000 triangles. Needs shapely.
    """
    faces = [obj for obj in objects if len(obj.faces)]
    if not faces:
        return list(objects), []
    triangles = triangles_of(objects)
    copies = _copies(triangles)
    beat()
    layered, overlaps = _layers(triangles, ~copies, beat)
    gone = copies | layered
    return _without(objects, gone), _told(objects, triangles, gone, overlaps)


def _without(objects: Sequence[SceneObject], gone: BoolArray) -> list[SceneObject]:
    """The objects less the triangles that are `gone`, (F,) in the order of the objects."""
    if not gone.any():
        return list(objects)
    kept = []
    ends = np.cumsum([len(obj.faces) for obj in objects])
    for obj, lost in zip(objects, np.split(gone, ends[:-1]), strict=True):
        if not lost.any():
            kept.append(obj)
        elif not lost.all():
            kept.append(_with_faces(obj, ~lost))
    return kept


def _with_faces(obj: SceneObject, keep: BoolArray) -> SceneObject:
    return replace(
        obj,
        faces=obj.faces[keep],
        face_material=obj.face_material[keep],
        uvs=None if obj.uvs is None else obj.uvs[keep],
    )


def _copies(triangles: Triangles) -> BoolArray:
    """(F,) True for triangles that have the corners of one that is kept."""
    with np.errstate(over="ignore"):
        ids = np.sort(point_ids(triangles.corners), axis=1)
        key = ids[:, 0] * MIX[0] + ids[:, 1] * MIX[1] + ids[:, 2]
    order = np.lexsort((np.arange(len(key)), triangles.rank, ~triangles.fixed, key))
    first = np.concatenate([[True], key[order][1:] != key[order][:-1]])
    leader = order[np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))]
    lost = np.zeros(len(key), np.bool_)
    follows = order[~first]
    leads = leader[~first]
    same = np.abs(_sorted(triangles.corners[follows]) - _sorted(triangles.corners[leads])).max(axis=(1, 2)) < 4 * SAME_M
    # Slivers without area shade nothing, and what may be moved away must not leave a hole.
    same &= triangles.fixed[follows] & triangles.fixed[leads] & (triangles.area[follows] > 1e-10)
    lost[follows] = same & ~triangles.touch(follows, leads)
    return lost


def _sorted(corners: F64) -> F64:
    """(N, 3, 3) corners in an order that does not depend on the one in which they are given."""
    weight = np.rint(corners / (2 * SAME_M)) @ np.array([1.0, 1e-3 * np.pi, 1e-6 * np.e])
    return np.take_along_axis(corners, np.argsort(weight, axis=1)[..., None], axis=1)


def _layers(
    triangles: Triangles, there: BoolArray, beat: Callable[[], None]
) -> tuple[BoolArray, list[tuple[int, int, float]]]:
    """Triangles to remove from planes in which surfaces overlap, and overlaps that stay: (kept, other, area in m²)."""
    import shapely

    gone = np.zeros(len(there), np.bool_)
    overlaps: list[tuple[int, int, float]] = []
    for group, flat in _planes(triangles, there):
        shapes = shapely.polygons(flat)
        middle = flat.mean(axis=1, keepdims=True)
        tree = shapely.STRtree(shapely.polygons(middle + 0.98 * (flat - middle)))
        one, other = tree.query(tree.geometries, predicate="intersects")
        pairs = one < other
        if not pairs.any():
            continue
        beat()
        stretch = triangles.area[group] / np.maximum(shapely.area(shapes), 1e-12)
        lost, left = _plane_layers(triangles, group, shapes, stretch, one[pairs], other[pairs], beat)
        gone[lost] = True
        overlaps += left
    return gone, [entry for entry in overlaps if not (gone[entry[0]] or gone[entry[1]])]


def _planes(triangles: Triangles, there: BoolArray) -> Iterator[tuple[IntArray, F64]]:
    """Triangles that may lie in one plane, two at least, and their corners (N, 3, 2) along it."""
    chosen = np.flatnonzero(there & (triangles.area >= _LEAST_M2))
    if len(chosen) < 2:
        return
    axis = np.abs(triangles.normal[chosen]).argmax(axis=1)
    sign = np.sign(np.take_along_axis(triangles.normal[chosen], axis[:, None], axis=1)[:, 0])
    normal = triangles.normal[chosen] * sign[:, None]
    offset = (normal * triangles.corners[chosen].mean(axis=1)).sum(axis=1)
    values = np.column_stack([normal / _NORMAL_CELL, offset / _PLANE_CELL_M])
    cells = np.rint(values).astype(np.int64)
    # A plane near the border of two cells is looked for in both: on either side there may be a part of it.
    reach = np.array([1e-4 / _NORMAL_CELL] * 3 + [SAME_M / _PLANE_CELL_M])
    keys, members = [np.column_stack([axis, cells])], [np.arange(len(chosen))]
    for column in range(4):
        rest = values[:, column] - cells[:, column]
        near = np.flatnonzero(np.abs(rest) > 0.5 - reach[column])
        moved = np.column_stack([axis, cells])[near]
        moved[:, column + 1] += np.sign(rest[near]).astype(np.int64)
        keys.append(moved)
        members.append(near)
    key, member = np.concatenate(keys), np.concatenate(members)
    order = np.lexsort((member, *key.T[::-1]))
    border = np.flatnonzero((key[order][1:] != key[order][:-1]).any(axis=1)) + 1
    for block in np.split(order, border):
        if len(block) > 1:
            of = member[block]
            along = [k for k in range(3) if k != int(axis[of[0]])]
            yield chosen[of], triangles.corners[chosen[of]][:, :, along]


def _plane_layers(
    triangles: Triangles,
    group: IntArray,
    shapes: npt.NDArray[np.object_],
    stretch: F64,
    one: IntArray,
    other: IntArray,
    beat: Callable[[], None],
) -> tuple[list[int], list[tuple[int, int, float]]]:
    """Triangles of one plane that go, and those that overlap. one, other: pairs of `shapes` that may overlap.

    Where there are more than _MOST_PAIRS of them (two fine grids in each other), all stay, and are told.
    """
    import shapely

    facing = np.einsum("nk,nk->n", triangles.normal[group[one]], triangles.normal[group[other]])
    gap = np.abs(
        ((triangles.corners[group[one], 0] - triangles.corners[group[other], 0]) * triangles.normal[group[one]]).sum(
            axis=1
        )
    )
    near = (np.abs(facing) > _SAME_COS) & (gap < SAME_M) & ~triangles.touch(group[one], group[other])
    one, other = one[near], other[near]
    if not len(one):
        return [], []
    area = shapely.area(shapely.intersection(shapes[one], shapes[other])) * np.maximum(stretch[one], stretch[other])
    size = triangles.area[group]
    beat()
    if len(one) > _MOST_PAIRS:
        alike = facing[near] > 0
        worst = int(np.argmax(area * alike))
        return [], [(int(group[one[worst]]), int(group[other[worst]]), float(area[alike].sum()))]
    met: dict[int, list[tuple[int, float]]] = {}
    for a, b, shared in zip(one.tolist(), other.tolist(), area.tolist(), strict=True):
        if shared > 0.01 * min(size[a], size[b]):
            met.setdefault(a, []).append((b, shared))
            met.setdefault(b, []).append((a, shared))
    layer = _layer_of(triangles, group, met)
    lost: list[int] = []
    left: list[tuple[int, int, float]] = []
    for t, neighbours in met.items():
        if layer[t] == 0:
            continue
        beat()
        # All of one plane: whichever way two of them face, their areas can be compared.
        below = [n for n, _ in neighbours if layer[n] == 0]
        if _is_again(triangles, group, shapes, met, layer, t, below):
            lost.append(int(group[t]))
            continue
        for n, shared in neighbours:
            alike = float(triangles.normal[group[t]] @ triangles.normal[group[n]]) > 0
            if layer[n] < layer[t] and alike:
                left.append((int(group[n]), int(group[t]), shared))
    return lost, left


def _layer_of(triangles: Triangles, group: IntArray, met: dict[int, list[tuple[int, float]]]) -> dict[int, int]:
    """Layer of each triangle that overlaps others: the lowest in which it overlaps none, large ones first."""
    size = np.round(triangles.area[group], 6)
    order = sorted(met, key=lambda t: (-size[t], int(triangles.rank[group[t]]), int(group[t])))
    layer: dict[int, int] = {}
    for t in order:
        taken = {layer[n] for n, _ in met[t] if n in layer}
        layer[t] = next(k for k in range(len(taken) + 1) if k not in taken)
    return layer


def _is_again(
    triangles: Triangles,
    group: IntArray,
    shapes: npt.NDArray[np.object_],
    met: dict[int, list[tuple[int, float]]],
    layer: dict[int, int],
    t: int,
    below: list[int],
) -> bool:
    """True where triangle `t` shows nothing that those of the lowest layer do not show."""
    import shapely

    if not below or not triangles.fixed[group[[t, *below]]].all():
        return False
    ground = shapely.union_all(shapes[below])
    if shapely.area(shapely.intersection(shapes[t], ground)) < _COVERED * shapely.area(shapes[t]):
        return False
    normal = triangles.normal[group]
    alike = (normal[below] @ normal[t] > 0).all()
    if alike and (triangles.material[group[below]] == triangles.material[group[t]]).all():
        return True
    # Another material, or the other side: it is the same surface again only if it covers as much.
    beside = {n for b in below for n, _ in met[b] if layer[n] == layer[t] and float(normal[n] @ normal[t]) > 0}
    again = shapely.union_all(shapes[sorted(beside | {t})])
    return bool(shapely.area(shapely.intersection(again, ground)) >= _COVERED * shapely.area(ground))


def _told(
    objects: Sequence[SceneObject], triangles: Triangles, gone: BoolArray, overlaps: list[tuple[int, int, float]]
) -> list[str]:
    told = []
    if float(triangles.area[gone].sum()) >= _TOLD_M2 / 2:
        by_object = np.bincount(triangles.owner[gone], triangles.area[gone], len(objects))
        largest = np.argsort(-by_object.round(6), kind="stable")[:3]
        names = ", ".join(repr(objects[number].name) for number in largest if by_object[number])
        told.append(
            f"{int(gone.sum())} triangles ({float(triangles.area[gone].sum()):.1f} m²) lay in others at the same place "
            f"and were removed, most of them of {names}: both would have been rendered black. Remove the copies in the "
            "file."
        )
    shared = sum(area for _, _, area in overlaps)
    if shared >= _TOLD_M2:
        kept, other, _ = max(overlaps, key=lambda entry: (entry[2], -entry[0], -entry[1]))
        names = " and ".join(dict.fromkeys(repr(objects[triangles.owner[t]].name) for t in (kept, other)))
        x, y, z = triangles.corners[other].mean(axis=0)
        told.append(
            f"surfaces lie in each other over {shared:.1f} m², most of it near ({x:.2f}, {y:.2f}, {z:.2f}) of {names}: "
            "which of them shows is chance. Lift one of them by a millimetre, or remove it."
        )
    return told

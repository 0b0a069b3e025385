"""Objects' meshes: outwards whatever their winding, coarse within a bound, in convex pieces that leave hollows free."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nimbusd.stages.mesh_distance import surface_distances
from nimbusd.stages.types import F64, BoolArray
from nimbusd.stages.workflow.sim.models.mesh_coarse import BOUND_M, FINE_FACES, coarse_mesh
from nimbusd.stages.workflow.sim.models.mesh_facing import turned_faces
from nimbusd.stages.workflow.sim.models.mesh_parts import MOST_PARTS, convex_parts
from tests.support.hollow_things import (
    Mesh,
    bowl,
    cup,
    dense_block,
    inside_out,
    mirrored,
    mixed,
    mug,
    open_box,
    revolved,
    slab,
    together,
    volume,
    write_obj,
)


def facing(mesh: Mesh) -> Mesh:
    """The mesh as an object gets it."""
    vertices, faces = mesh
    return vertices, np.where(turned_faces(vertices, faces)[:, None], faces[:, ::-1], faces)


def apart(mesh: Mesh) -> Mesh:
    """The same, every face with vertices of its own, as files with flat normals have it."""
    return mesh[0][mesh[1]].reshape(-1, 3), np.arange(3 * len(mesh[1]), dtype=np.int32).reshape(-1, 3)


HOLLOW: dict[str, Callable[[], Mesh]] = {"cup": cup, "mug": mug, "bowl": bowl, "box": open_box}
SPOILT: dict[str, Callable[[Mesh], Mesh]] = {
    "right": lambda mesh: mesh,
    "inside out": inside_out,
    "mixed": mixed,
    "mirrored": mirrored,
}


@pytest.mark.parametrize("shape", HOLLOW)
@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("split", [False, True])
def test_closed_meshes_face_outwards_however_they_were_spoilt(shape: str, how: str, split: bool) -> None:
    right, spoilt = HOLLOW[shape](), SPOILT[how](HOLLOW[shape]())
    assert volume(facing(apart(spoilt) if split else spoilt)) == pytest.approx(volume(right))


def test_a_mesh_that_faces_outwards_keeps_every_face() -> None:
    assert not turned_faces(*mug()).any()


@pytest.mark.parametrize("spoil", [inside_out, mixed])
def test_an_open_shell_faces_outwards_by_what_is_seen_from_either_side(spoil: object) -> None:
    shell = revolved([(0, 0), (0.03, 0), (0.03, 0.09)])  # a wall without thickness, open above
    wall = np.ptp(shell[0][shell[1]][:, :, 2], axis=1) > 0.01
    vertices, faces = facing(SPOILT["inside out" if spoil is inside_out else "mixed"](shell))
    corners = vertices[faces][wall]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("ij,ij->i", normal[:, :2], corners.mean(axis=1)[:, :2]) > 0).all()


@pytest.mark.parametrize("turn", [lambda mesh: mesh, inside_out])
def test_a_cavity_keeps_facing_into_the_hollow(turn: object) -> None:
    hollow = together(slab((0, 0, 0), (4, 4, 4)), inside_out(slab((1, 1, 1), (3, 3, 3))))
    spoilt = inside_out(hollow) if turn is inside_out else hollow
    assert volume(facing(spoilt)) == pytest.approx(64 - 8)


def test_a_flat_sheet_and_a_strip_without_sides_stay_as_they_are() -> None:
    sheet = (
        np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float64),
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
    )
    assert not turned_faces(*sheet).any()
    angle = np.arange(12) * (2 * np.pi / 12)
    across = np.stack([np.cos(angle / 2) * np.cos(angle), np.cos(angle / 2) * np.sin(angle), np.sin(angle / 2)], axis=1)
    middle = 5 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    points = np.concatenate([middle + across, middle - across])
    faces = []
    for i in range(12):
        j = i + 1
        a, b = (j, j + 12) if j < 12 else (12, 0)  # the ends meet upside down
        faces += [[i, a, b], [i, b, i + 12]]
    assert not turned_faces(points, np.array(faces, np.int32)).any()


@pytest.mark.parametrize("suffix", [".obj", ".stl"])
def test_a_file_that_is_inside_out_becomes_an_object_that_is_not(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("mujoco", reason="needs the mujoco extra")
    from nimbusd.stages.workflow.sim.models.mesh_shape import mesh_shape

    file = tmp_path / f"mug{suffix}"
    if suffix == ".obj":
        write_obj(file, inside_out(mug()))
    else:
        trimesh = pytest.importorskip("trimesh")
        trimesh.Trimesh(*inside_out(mug()), process=False).export(file)
    shape = mesh_shape(str(file), 1.0)
    assert shape.turned
    assert volume((shape.vertices, shape.faces)) == pytest.approx(volume(mug()), rel=1e-4)


def test_a_dense_mesh_is_planned_with_a_coarse_one_within_its_bound() -> None:
    vertices, faces = dense_block(5)
    assert len(faces) > 4 * FINE_FACES
    coarse = coarse_mesh(vertices, faces)
    assert coarse is not None
    assert len(coarse[1]) < len(faces) / 2
    rng = np.random.default_rng(0)
    for (a, fa), (b, fb) in (((vertices, faces), coarse), (coarse, (vertices, faces))):
        weights = rng.dirichlet((1.0, 1.0, 1.0), 4000)
        probes = np.einsum("ij,ijk->ik", weights, a[fa[rng.integers(len(fa), size=4000)]])
        assert surface_distances(probes, b[fb]).max() < 1.2 * BOUND_M
    assert coarse_mesh(vertices.copy(), faces.copy()) is coarse  # known by what it is, not by where it lies
    assert coarse_mesh(*cup()) is None


def within(points: F64, corners: F64) -> BoolArray:
    from scipy.spatial import Delaunay

    return np.asarray(Delaunay(corners).find_simplex(points) >= 0)


@pytest.mark.parametrize("shape", HOLLOW)
def test_convex_pieces_cover_a_hollow_thing_and_leave_its_hollow_free(shape: str) -> None:
    vertices, faces = HOLLOW[shape]()
    parts = convex_parts(vertices, faces)
    assert len(parts) <= MOST_PARTS
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle = (vertices[:96].min(axis=0) + vertices[:96].max(axis=0)) / 2 if shape == "mug" else (low + high) / 2
    hollow = np.array([[*middle[:2], z] for z in np.linspace(low[2] + 0.4 * (high - low)[2], high[2], 8)])
    assert not any(within(hollow, corners).any() for corners in parts)
    centres = vertices[faces].mean(axis=1)
    inwards = centres + 1e-4 * (centres.mean(axis=0) - centres)
    covered = np.zeros(len(inwards), bool)
    for corners in parts:
        grown = corners.mean(axis=0) + (corners - corners.mean(axis=0)) * 1.02
        covered |= within(centres, grown)
    assert covered.all()


def test_a_convex_thing_stays_in_one_piece() -> None:
    (corners,) = convex_parts(*slab((0, 0, 0), (0.04, 0.05, 0.06)))
    assert len(corners) == 8

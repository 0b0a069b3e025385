from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from shapely.geometry import Polygon

from nimbusd.stages.load.mesh.polygons import triangulate_polygons
from nimbusd.stages.types import F64
from tests.support.simple_polygons import outline, star


def in_space(points: F64, rng: np.random.Generator, *, far_m: float = 0.0) -> F64:
    """The polygon turned, shifted and scaled in space."""
    flat = np.c_[points, np.zeros(len(points))]
    return np.asarray(flat @ Rotation.random(random_state=int(rng.integers(1 << 30))).as_matrix().T + far_m)


def triangle_normals(points: F64, triangles: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> F64:
    a, b, c = (points[triangles[:, k]] for k in range(3))
    return np.asarray(np.cross(b - a, c - a) / 2)


@given(seed=st.integers(0, 2**32))
def test_triangles_cover_what_any_simple_polygon_covers_and_look_its_way(seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = outline(rng)
    points = in_space(made.points, rng, far_m=float(rng.choice([0, 1000])))
    triangles, owner = triangulate_polygons(points, [len(points)])
    normals = triangle_normals(points, triangles)
    total = normals.sum(axis=0)
    assert np.linalg.norm(normals, axis=1).sum() == pytest.approx(made.area, rel=1e-6)
    assert np.linalg.norm(total) == pytest.approx(made.area, rel=1e-6)  # none looks the other way
    assert not owner.any()


@given(seed=st.integers(0, 2**32))
def test_every_edge_of_a_polygon_is_an_edge_of_its_triangles(seed: int) -> None:
    """The faces beside it must meet it without cracks, also where corners lie in line."""
    rng = np.random.default_rng(seed)
    made = outline(rng)
    size = len(made.points)
    triangles, _ = triangulate_polygons(in_space(made.points, rng), [size])
    assert len(triangles) == size - 2
    edges = {(int(t[k]), int(t[(k + 1) % 3])) for t in triangles for k in range(3)}
    assert {(k, (k + 1) % size) for k in range(size)} <= edges


def test_a_door_in_a_wall_of_one_piece_stays_open_and_an_l_shaped_floor_keeps_its_area() -> None:
    door = np.array([(0, 0), (2, 0), (2, 2), (3, 2), (3, 0), (6, 0), (6, 3), (0, 3)], np.float64)
    floor = np.array([(0, 0), (12, 0), (12, 3), (3, 3), (3, 12), (0, 12)], np.float64)
    for outline_2d, area, hole in ((door, 16, (2.5, 1.0)), (floor, 63, (8.0, 8.0))):
        points = np.c_[outline_2d, np.zeros(len(outline_2d))]
        triangles, _ = triangulate_polygons(points, [len(points)])
        pieces = [Polygon(points[t, :2]) for t in triangles]
        assert sum(piece.area for piece in pieces) == pytest.approx(area)
        assert not any(
            piece.buffer(1e-9).contains(Polygon([hole, np.add(hole, (0.1, 0)), np.add(hole, (0, 0.1))]))
            for piece in pieces
        )


def test_many_polygons_at_once_keep_their_order_and_are_cut_as_each_alone() -> None:
    rng = np.random.default_rng(4)
    polygons = [in_space(outline(rng).points, rng) for _ in range(40)]
    polygons += [in_space(star(rng, 3), rng) for _ in range(10)]
    order = rng.permutation(len(polygons))
    polygons = [polygons[k] for k in order]
    counts = [len(p) for p in polygons]
    triangles, owner = triangulate_polygons(np.concatenate(polygons), counts)
    assert (np.diff(owner) >= 0).all()
    first = np.cumsum([0, *counts])
    for number, points in enumerate(polygons):
        alone, _ = triangulate_polygons(points, [len(points)])
        np.testing.assert_array_equal(triangles[owner == number] - first[number], alone)


def test_convex_polygons_are_fans_around_their_first_corner() -> None:
    square = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], np.float64)
    triangles, _ = triangulate_polygons(square, [4])
    assert triangles.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_a_concave_quad_is_cut_at_its_dent() -> None:
    dart = np.array([(1, 0, 0), (0, 2, 0), (-1, 0, 0), (0, 0.5, 0)], np.float64)
    triangles, _ = triangulate_polygons(dart, [4])
    assert all(3 in triangle for triangle in triangles)
    assert np.linalg.norm(triangle_normals(dart, triangles), axis=1).sum() == pytest.approx(1.5)


def test_a_bent_polygon_keeps_the_corners_that_lie_in_line_when_seen_along_its_normal() -> None:
    bent = np.array([(-5, 0, 5), (5, 0, 5), (5, 0, -5), (-5, 0, -5), (0, 5, -5)], np.float64)
    triangles, _ = triangulate_polygons(bent, [5])
    assert set(triangles.ravel().tolist()) == set(range(5))


def test_polygons_without_area_or_that_cross_themselves_still_become_triangles() -> None:
    line = np.array([(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)], np.float64)
    bow = np.array([(0, 0, 0), (1, 1, 0), (1, 0, 0), (0, 1, 0)], np.float64)
    for points in (line, bow):
        triangles, _ = triangulate_polygons(points, [4])
        assert len(triangles) >= 1
        assert triangles.max() < 4


def test_two_corners_are_no_face() -> None:
    with pytest.raises(ValueError, match="three corners"):
        triangulate_polygons(np.zeros((5, 3)), [3, 2])
    triangles, owner = triangulate_polygons(np.zeros((0, 3)), [])
    assert (triangles.shape, owner.shape) == ((0, 3), (0,))

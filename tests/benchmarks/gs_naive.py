"""The baseline of `tests.benchmarks.gs_cpu`: the original splatting algorithm, written down for a CPU.

One frame after another; each Gaussian goes into the list of every tile that the square around three standard
deviations of its longer axis touches; each tile sorts its list by depth; each pixel walks down its tile's list until
it is opaque. Compiled and multithreaded as ours, so that only the algorithm differs.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from nimbusd.renderers.splats.kernels import _color
from nimbusd.renderers.splats.types import NEAR_M, SplatImages, cameras_to_splats
from nimbusd.stages.types import F32, F64, Camera, Rgb, Splats

_TILE = 16


@numba.njit(parallel=True, cache=True)
def _project(
    means: F32, scales: F32, quats: F32, opacities: F32, sh: F32, view: F64, eye: F64, K: F64, size: F64, near: float
) -> F32:
    """(N, 12): u, v, a, b, c, opacity, radius, depth, red, green, blue, 0; radius 0 for what is not seen."""
    made = np.zeros((len(means), 12), np.float32)
    fx, fy, cx, cy = K
    rotation = np.ascontiguousarray(view[:, :3])
    for g in numba.prange(len(means)):
        mean = means[g].astype(np.float64)
        p = rotation @ mean + view[:, 3]
        z = p[2]
        if z < near:
            continue
        w, i, j, k = quats[g]
        R = np.array(
            [
                [1 - 2 * (j * j + k * k), 2 * (i * j - w * k), 2 * (i * k + w * j)],
                [2 * (i * j + w * k), 1 - 2 * (i * i + k * k), 2 * (j * k - w * i)],
                [2 * (i * k - w * j), 2 * (j * k + w * i), 1 - 2 * (i * i + j * j)],
            ]
        ).astype(np.float64)
        tx = min(max(p[0] / z, -1.3 * cx / fx), 1.3 * (size[0] - cx) / fx)
        ty = min(max(p[1] / z, -1.3 * cy / fy), 1.3 * (size[1] - cy) / fy)
        J = np.array([[fx / z, 0.0, -fx * tx / z], [0.0, fy / z, -fy * ty / z]])
        half = J @ rotation @ (R * scales[g].astype(np.float64))
        cov = half @ half.T
        uu, vv, uv = cov[0, 0] + 0.3, cov[1, 1] + 0.3, cov[0, 1]
        determinant = uu * vv - uv * uv
        middle = 0.5 * (uu + vv)
        longest = middle + math.sqrt(max(0.1, middle * middle - determinant))
        away = mean - eye
        away /= np.sqrt((away * away).sum())
        made[g, 0], made[g, 1] = fx * p[0] / z + cx, fy * p[1] / z + cy
        made[g, 2], made[g, 3], made[g, 4] = vv / determinant, -uv / determinant, uu / determinant
        made[g, 5], made[g, 6], made[g, 7] = opacities[g], math.ceil(3 * math.sqrt(longest)), z
        for channel in range(3):
            made[g, 8 + channel] = _color(sh, g, np.float32(away[0]), np.float32(away[1]), np.float32(away[2]), channel)
    return made


@numba.njit(cache=True)
def _square(record: F32, columns: int, rows: int) -> tuple[int, int, int, int]:
    """Tiles x0, x1, y0, y1 (ends excluded) of the bounding square."""
    u, v, r = record[0], record[1], record[6]
    if r == 0:
        return 0, 0, 0, 0
    x0 = min(max(int((u - r) // _TILE), 0), columns)
    x1 = min(max(int((u + r + _TILE - 1) // _TILE), 0), columns)
    y0 = min(max(int((v - r) // _TILE), 0), rows)
    y1 = min(max(int((v + r + _TILE - 1) // _TILE), 0), rows)
    return x0, x1, y0, y1


@numba.njit(cache=True)
def _lists(records: F32, columns: int, rows: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Starts (tiles + 1,) and the Gaussians of each tile, in the order of the cloud."""
    start = np.zeros(columns * rows + 1, np.int64)
    for g in range(len(records)):
        x0, x1, y0, y1 = _square(records[g], columns, rows)
        for y in range(y0, y1):
            for x in range(x0, x1):
                start[y * columns + x + 1] += 1
    start = np.cumsum(start)
    place, listed = start.copy(), np.empty(start[-1], np.int32)
    for g in range(len(records)):
        x0, x1, y0, y1 = _square(records[g], columns, rows)
        for y in range(y0, y1):
            for x in range(x0, x1):
                listed[place[y * columns + x]] = g
                place[y * columns + x] += 1
    return start, listed


@numba.njit(parallel=True, cache=True)
def _blend(records, start, listed, columns, background, unit_m, rgb, depth_m, coverage):  # type: ignore[no-untyped-def]
    height, width = depth_m.shape
    for tile in numba.prange(len(start) - 1):
        part = listed[start[tile] : start[tile + 1]]
        depths = np.empty(len(part), np.float32)
        for n in range(len(part)):
            depths[n] = records[part[n], 7]
        part = part[np.argsort(depths, kind="mergesort")]
        left, top = tile % columns * _TILE, tile // columns * _TILE
        for row in range(top, min(top + _TILE, height)):
            for column in range(left, min(left + _TILE, width)):
                through, red, green, blue, far = (
                    np.float32(1),
                    np.float32(0),
                    np.float32(0),
                    np.float32(0),
                    np.float32(0),
                )
                for g in part:
                    record = records[g]
                    du, dv = np.float32(column + 0.5) - record[0], np.float32(row + 0.5) - record[1]
                    power = np.float32(-0.5) * (record[2] * du * du + record[4] * dv * dv) - record[3] * du * dv
                    if power > 0:
                        continue
                    alpha = min(np.float32(0.99), record[5] * np.float32(math.exp(power)))
                    if alpha < np.float32(1 / 255):
                        continue
                    weight = alpha * through
                    red += weight * record[8]
                    green += weight * record[9]
                    blue += weight * record[10]
                    far += weight * record[7]
                    through -= weight
                    if through < np.float32(1e-4):
                        break
                rgb[row, column, 0] = red + through * background[0]
                rgb[row, column, 1] = green + through * background[1]
                rgb[row, column, 2] = blue + through * background[2]
                coverage[row, column] = 1 - through
                depth_m[row, column] = far / (1 - through) * unit_m if through < 1 else 0.0


def render_naive(splats: Splats, camera: Camera, T_world_camera: F64, background: Rgb) -> tuple[SplatImages, int]:
    """The images, with depths of the Gaussians' centres, and how many Gaussian-tile pairs were listed."""
    view, eye = cameras_to_splats(splats, T_world_camera)
    shape = (len(view), camera.height, camera.width)
    images = SplatImages(np.empty((*shape, 3), np.float32), np.empty(shape, np.float32), np.empty(shape, np.float32))
    columns, rows = -(-camera.width // _TILE), -(-camera.height // _TILE)
    K, size = np.array([camera.fx, camera.fy, camera.cx, camera.cy]), np.array([camera.width, camera.height], float)
    pairs = 0
    for b in range(len(view)):
        records = _project(
            splats.means, splats.scales, splats.quats, splats.opacities, splats.sh, view[b], eye[b], K, size,
            NEAR_M / splats.unit_m,
        )  # fmt: skip
        start, listed = _lists(records, columns, rows)
        _blend(
            records, start, listed, columns, np.asarray(background, np.float32), splats.unit_m,
            images.rgb[b], images.depth_m[b], images.coverage[b],
        )  # fmt: skip
        pairs += len(listed)
    return images, pairs

"""Compiled kernels of the CPU rasterizer: project, sort, blend. numpy arrays in and out, no allocation per Gaussian.

The way of one batch of frames: `project` turns Gaussians into records and counts their pixel tiles; `sort_and_bin`
orders the records by depth and lists them by tile; `blend` draws each tile front to back. Together the last digits
(depth) of one radix sort by (frame, tile, depth) are sorted before a Gaussian is copied to its tiles, where there is
less to sort.

A record is a cache line of 16 float32, two of them unused: u, v (pixels), a, b, c (the inverse 2-D covariance),
opacity, the half height in pixels and 2 tau (of the ellipse where alpha falls to ALPHA_MIN), red, green, blue, depth of
the centre, and the depth's slopes along u and v: where a ray meets the Gaussian, to first order.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from nimbusd.renderers.splats.types import ALPHA_MAX, ALPHA_MIN, BLUR_PX2, FIELD_MARGIN, STOP
from nimbusd.stages.types import F32, F64, I32

I64 = npt.NDArray[np.int64]

TILE = 16
"""Edge of a tile in pixels: two vectors of eight float32."""

RECORD = 16
CHUNK = 8192
"""Gaussians that one thread projects at a time."""

_U, _V, _A, _B, _C, _OPACITY, _HALF, _TAU2, _RED, _DEPTH, _SLOPE_U, _SLOPE_V = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13
)  # fmt: skip
_STOP_EVERY = 8


def _exp_polynomial() -> tuple[float, ...]:
    """Coefficients, lowest first, of a polynomial that equals exp on [-0.71, 0] to 1e-7 (Chebyshev nodes)."""
    low, count = -0.71, 6
    nodes = low / 2 + low / 2 * np.cos(np.pi * (np.arange(count) + 0.5) / count)
    return tuple(float(c) for c in np.linalg.solve(np.vander(nodes, increasing=True), np.exp(nodes)))


_E0, _E1, _E2, _E3, _E4, _E5 = (np.float32(c) for c in _exp_polynomial())


@numba.njit(inline="always", fastmath=True)
def _nearest_q(du0: float, du1: float, dv0: float, dv1: float, a: float, b: float, c: float) -> float:
    """The least of a x² + 2 b x y + c y² over du0 ≤ x ≤ du1, dv0 ≤ y ≤ dv1."""
    inside_u = du0 <= 0.0 <= du1
    inside_v = dv0 <= 0.0 <= dv1
    if inside_u and inside_v:
        return 0.0
    best = np.inf
    if not inside_u:
        x = du0 if du0 > 0.0 else du1
        y = min(max(-b * x / c, dv0), dv1)
        best = a * x * x + 2.0 * b * x * y + c * y * y
    if not inside_v:
        y = dv0 if dv0 > 0.0 else dv1
        x = min(max(-b * y / a, du0), du1)
        best = min(best, a * x * x + 2.0 * b * x * y + c * y * y)
    return best


@numba.njit(inline="always", fastmath=True)
def _tile_box(record: F32, width: int, height: int) -> tuple[int, int, int, int]:
    """Tiles x0, x1, y0, y1 (ends excluded) that the ellipse's bounding box touches with a pixel centre."""
    # The half width follows from the half height: both are the root of 2 tau times the covariance's diagonal.
    half_u = record[_HALF] * np.sqrt(record[_C] / record[_A])
    x0 = max(int(np.ceil(record[_U] - half_u - np.float32(0.5))), 0)
    x1 = min(int(np.floor(record[_U] + half_u - np.float32(0.5))), width - 1)
    y0 = max(int(np.ceil(record[_V] - record[_HALF] - np.float32(0.5))), 0)
    y1 = min(int(np.floor(record[_V] + record[_HALF] - np.float32(0.5))), height - 1)
    if x1 < x0 or y1 < y0:
        return 0, 0, 0, 0
    return x0 // TILE, x1 // TILE + 1, y0 // TILE, y1 // TILE + 1


@numba.njit(inline="always", fastmath=True)
def _meets(record: F32, tile_x: int, tile_y: int) -> bool:
    """True where the ellipse reaches into the rectangle of the tile's pixel centres."""
    du0 = np.float32(tile_x * TILE) + np.float32(0.5) - record[_U]
    dv0 = np.float32(tile_y * TILE) + np.float32(0.5) - record[_V]
    edge = np.float32(TILE - 1)
    return bool(_nearest_q(du0, du0 + edge, dv0, dv0 + edge, record[_A], record[_B], record[_C]) <= record[_TAU2])


@numba.njit(inline="always", fastmath=True)
def _color(sh: F32, g: int, x: np.float32, y: np.float32, z: np.float32, channel: int) -> float:
    """Colour of one channel seen along the unit vector x, y, z of the cloud's frame."""
    terms = sh.shape[1]
    value = np.float32(0.5) + np.float32(0.28209479177387814) * sh[g, 0, channel]
    if terms > 1:
        value += np.float32(0.4886025119029199) * (
            -y * sh[g, 1, channel] + z * sh[g, 2, channel] - x * sh[g, 3, channel]
        )
    if terms > 4:
        xx, yy, zz = x * x, y * y, z * z
        value += (
            np.float32(1.0925484305920792) * x * y * sh[g, 4, channel]
            - np.float32(1.0925484305920792) * y * z * sh[g, 5, channel]
            + np.float32(0.31539156525252005) * (2 * zz - xx - yy) * sh[g, 6, channel]
            - np.float32(1.0925484305920792) * x * z * sh[g, 7, channel]
            + np.float32(0.5462742152960396) * (xx - yy) * sh[g, 8, channel]
        )
        if terms > 9:
            value += (
                -np.float32(0.5900435899266435) * y * (3 * xx - yy) * sh[g, 9, channel]
                + np.float32(2.890611442640554) * x * y * z * sh[g, 10, channel]
                - np.float32(0.4570457994644658) * y * (4 * zz - xx - yy) * sh[g, 11, channel]
                + np.float32(0.3731763325901154) * z * (2 * zz - 3 * xx - 3 * yy) * sh[g, 12, channel]
                - np.float32(0.4570457994644658) * x * (4 * zz - xx - yy) * sh[g, 13, channel]
                + np.float32(1.445305721320277) * z * (xx - yy) * sh[g, 14, channel]
                - np.float32(0.5900435899266435) * x * (xx - 3 * yy) * sh[g, 15, channel]
            )
    return float(max(value, np.float32(0.0)))


@numba.njit(parallel=True, fastmath=True, nogil=True, cache=True)
def project(
    means: F32, scales: F32, quats: F32, opacities: F32, sh: F32, view: F64, position: F64, intrinsics: F64, size: I64,
    near: float, records: F32, kept: I64, pairs: I64,
) -> None:  # fmt: skip
    """Fill the records of the Gaussians that each frame sees.

    view, position: (B, 3, 4), (B, 3) as of `cameras_to_splats`. intrinsics: fx, fy, cx, cy. size: width, height.
    near: in units of the cloud. records: (B, N, RECORD), of which chunk k fills the rows from k * CHUNK on.
    kept, pairs: (B, chunks) numbers of records, and of tiles that they meet.
    """
    count = len(means)
    chunks = kept.shape[1]
    fx, fy, cx, cy = intrinsics
    width, height = size
    # What lies further outside than the linearization is trusted keeps its place, but not its slope.
    left, right = -FIELD_MARGIN * cx / fx, FIELD_MARGIN * (width - cx) / fx
    up, down = -FIELD_MARGIN * cy / fy, FIELD_MARGIN * (height - cy) / fy
    for item in numba.prange(len(view) * chunks):
        b, chunk = item // chunks, item % chunks
        M, eye = view[b], position[b]
        first = chunk * CHUNK
        out = first
        tiles = 0
        for g in range(first, min(first + CHUNK, count)):
            mx, my, mz = np.float64(means[g, 0]), np.float64(means[g, 1]), np.float64(means[g, 2])
            z = M[2, 0] * mx + M[2, 1] * my + M[2, 2] * mz + M[2, 3]
            opacity = opacities[g]
            if z < near or opacity < ALPHA_MIN:
                continue
            x = (M[0, 0] * mx + M[0, 1] * my + M[0, 2] * mz + M[0, 3]) / z
            y = (M[1, 0] * mx + M[1, 1] * my + M[1, 2] * mz + M[1, 3]) / z
            u, v = fx * x + cx, fy * y + cy
            s0, s1, s2 = np.float64(scales[g, 0]), np.float64(scales[g, 1]), np.float64(scales[g, 2])
            tau2 = 2.0 * np.log(opacity / ALPHA_MIN)
            # A bound before the exact covariance: no slope of the projection exceeds this many pixels per unit.
            tx, ty = min(max(x, left), right), min(max(y, up), down)
            slope2 = max(fx, fy) ** 2 * (1.0 + tx * tx + ty * ty) / (z * z)
            reach = np.sqrt(tau2 * (slope2 * max(s0, s1, s2) ** 2 + BLUR_PX2))
            if u + reach < 0.0 or u - reach > width or v + reach < 0.0 or v - reach > height:
                continue
            w, i, j, k = quats[g, 0], quats[g, 1], quats[g, 2], quats[g, 3]
            r00, r01, r02 = 1 - 2 * (j * j + k * k), 2 * (i * j - w * k), 2 * (i * k + w * j)
            r10, r11, r12 = 2 * (i * j + w * k), 1 - 2 * (i * i + k * k), 2 * (j * k - w * i)
            r20, r21, r22 = 2 * (i * k - w * j), 2 * (j * k + w * i), 1 - 2 * (i * i + j * j)
            # Rows of the projection's Jacobian times the camera's rotation.
            ju, jv = fx / z, fy / z
            p0, p1, p2 = ju * (M[0, 0] - tx * M[2, 0]), ju * (M[0, 1] - tx * M[2, 1]), ju * (M[0, 2] - tx * M[2, 2])
            q0, q1, q2 = jv * (M[1, 0] - ty * M[2, 0]), jv * (M[1, 1] - ty * M[2, 1]), jv * (M[1, 2] - ty * M[2, 2])
            a0, a1, a2 = (
                s0 * (p0 * r00 + p1 * r10 + p2 * r20),
                s1 * (p0 * r01 + p1 * r11 + p2 * r21),
                s2 * (p0 * r02 + p1 * r12 + p2 * r22),
            )
            b0, b1, b2 = (
                s0 * (q0 * r00 + q1 * r10 + q2 * r20),
                s1 * (q0 * r01 + q1 * r11 + q2 * r21),
                s2 * (q0 * r02 + q1 * r12 + q2 * r22),
            )
            c0, c1, c2 = (
                s0 * (M[2, 0] * r00 + M[2, 1] * r10 + M[2, 2] * r20),
                s1 * (M[2, 0] * r01 + M[2, 1] * r11 + M[2, 2] * r21),
                s2 * (M[2, 0] * r02 + M[2, 1] * r12 + M[2, 2] * r22),
            )
            cov_uu = a0 * a0 + a1 * a1 + a2 * a2 + BLUR_PX2
            cov_vv = b0 * b0 + b1 * b1 + b2 * b2 + BLUR_PX2
            cov_uv = a0 * b0 + a1 * b1 + a2 * b2
            determinant = cov_uu * cov_vv - cov_uv * cov_uv
            if not determinant > 1e-12 * cov_uu * cov_vv:
                continue  # a line in float64 arithmetic: it covers no pixel that can be computed
            record = records[b, out]
            record[_U], record[_V] = u, v
            record[_A], record[_B], record[_C] = cov_vv / determinant, -cov_uv / determinant, cov_uu / determinant
            record[_OPACITY], record[_HALF], record[_TAU2] = opacity, np.sqrt(tau2 * cov_vv), tau2
            x0, x1, y0, y1 = _tile_box(record, width, height)
            met = 0
            for tile_y in range(y0, y1):
                for tile_x in range(x0, x1):
                    met += _meets(record, tile_x, tile_y)
            if met == 0:
                continue
            ex, ey, ez = mx - eye[0], my - eye[1], mz - eye[2]
            norm = 1.0 / np.sqrt(ex * ex + ey * ey + ez * ez)
            dx, dy, dz = np.float32(ex * norm), np.float32(ey * norm), np.float32(ez * norm)
            for channel in range(3):
                record[_RED + channel] = _color(sh, g, dx, dy, dz, channel)
            record[_DEPTH] = z
            # The mean of the depth, given u and v: covariance with the depth times the inverse covariance.
            cov_uz, cov_vz = a0 * c0 + a1 * c1 + a2 * c2, b0 * c0 + b1 * c1 + b2 * c2
            record[_SLOPE_U] = (cov_vv * cov_uz - cov_uv * cov_vz) / determinant
            record[_SLOPE_V] = (cov_uu * cov_vz - cov_uv * cov_uz) / determinant
            tiles += met
            out += 1
        kept[b, chunk] = out - first
        pairs[b, chunk] = tiles


@numba.njit(nogil=True, cache=True)
def _radix_sort(keys: npt.NDArray[np.uint32], values: I32) -> I32:
    """`values` ordered by `keys`, stable, 11 bits at a time."""
    count = len(keys)
    spare_keys, spare_values = np.empty_like(keys), np.empty_like(values)
    for shift in (0, 11, 22):
        histogram = np.zeros(2049, np.int64)
        for n in range(count):
            histogram[((keys[n] >> np.uint32(shift)) & np.uint32(2047)) + 1] += 1
        if histogram.max() == count:
            continue  # all keys have the same digit here
        for digit in range(2048):
            histogram[digit + 1] += histogram[digit]
        for n in range(count):
            digit = (keys[n] >> np.uint32(shift)) & np.uint32(2047)
            at = histogram[digit]
            histogram[digit] += 1
            spare_keys[at], spare_values[at] = keys[n], values[n]
        keys, spare_keys = spare_keys, keys
        values, spare_values = spare_values, values
    return values


@numba.njit(parallel=True, nogil=True, cache=True)
def sort_and_bin(records: F32, kept: I64, first_pair: I64, size: I64, starts: I64, listed: I32) -> None:
    """List the records of each tile, nearest first; those of equal depth in the order of the cloud.

    first_pair: (B,) where each frame's part of `listed` begins. starts: (B, tiles + 1) filled with positions in
    `listed`. listed: (P,) int32 filled with rows of records[b].
    """
    width, height = size
    columns = -(-width // TILE)
    for b in numba.prange(len(records)):
        total = kept[b].sum()
        keys, rows = np.empty(total, np.uint32), np.empty(total, np.int32)
        n = 0
        for chunk in range(kept.shape[1]):
            for row in range(chunk * CHUNK, chunk * CHUNK + kept[b, chunk]):
                # Bits of positive floats order as the floats do.
                keys[n] = records[b, row, _DEPTH : _DEPTH + 1].view(np.uint32)[0]
                rows[n] = row
                n += 1
        rows = _radix_sort(keys, rows)
        start = starts[b]
        start[:] = 0
        for n in range(total):
            record = records[b, rows[n]]
            x0, x1, y0, y1 = _tile_box(record, width, height)
            for tile_y in range(y0, y1):
                for tile_x in range(x0, x1):
                    if _meets(record, tile_x, tile_y):
                        start[tile_y * columns + tile_x + 1] += 1
        start[0] = first_pair[b]
        for tile in range(len(start) - 1):
            start[tile + 1] += start[tile]
        place = start.copy()
        for n in range(total):
            record = records[b, rows[n]]
            x0, x1, y0, y1 = _tile_box(record, width, height)
            for tile_y in range(y0, y1):
                for tile_x in range(x0, x1):
                    if _meets(record, tile_x, tile_y):
                        tile = tile_y * columns + tile_x
                        listed[place[tile]] = rows[n]
                        place[tile] += 1


@numba.njit(inline="never", fastmath=True, nogil=True)
def _add(
    through: F32,
    red: F32,
    green: F32,
    blue: F32,
    depth: F32,
    columns: F32,
    rows: F32,
    record: F32,
    u: np.float32,
    v: np.float32,
) -> None:
    """Add one Gaussian to pixels (P,) of a tile. columns, rows: their places in it. u, v: the Gaussian's.

    One flat loop without branches over separate arrays, which the compiler turns into vectors.
    """
    a, both, c = np.float32(-0.0625) * record[_A], np.float32(-0.125) * record[_B], np.float32(-0.0625) * record[_C]
    opacity, z, slope_u, slope_v = record[_OPACITY], record[_DEPTH], record[_SLOPE_U], record[_SLOPE_V]
    r, g, b = record[_RED], record[_RED + 1], record[_RED + 2]
    for n in range(len(through)):
        du, dv = columns[n] - u, rows[n] - v
        # The exponent's eighth, whose exponential is raised to the 8th power; inside the ellipse it is above -0.70.
        p = max(a * du * du + both * du * dv + c * dv * dv, np.float32(-0.71))
        e = _E0 + p * (_E1 + p * (_E2 + p * (_E3 + p * (_E4 + p * _E5))))
        e = e * e
        e = e * e
        e = e * e
        alpha = min(opacity * e, np.float32(ALPHA_MAX))
        left = through[n]
        weight = alpha * left
        weight = weight if alpha >= np.float32(ALPHA_MIN) else np.float32(0.0)
        weight = weight if left >= np.float32(STOP) else np.float32(0.0)
        through[n] = left - weight
        red[n] += weight * r
        green[n] += weight * g
        blue[n] += weight * b
        depth[n] += weight * (z + slope_u * du + slope_v * dv)


@numba.njit(parallel=True, fastmath=True, nogil=True, cache=True)
def blend(
    records: F32, starts: I64, listed: I32, background: F32, unit_m: float, rgb: F32, depth_m: F32, coverage: F32
) -> None:
    """Draw every tile of every frame, front to back. The outputs are filled; see `SplatImages`."""
    frames, height, width = depth_m.shape
    columns = -(-width // TILE)
    tiles = starts.shape[1] - 1
    area = TILE * TILE
    places = np.arange(area)
    across, down = (places % TILE).astype(np.float32), (places // TILE).astype(np.float32)
    for item in numba.prange(frames * tiles):
        b, tile = item // tiles, item % tiles
        left, top = tile % columns * TILE, tile // columns * TILE
        bottom = min(top + TILE, height)
        through, red, green = np.ones(area, np.float32), np.zeros(area, np.float32), np.zeros(area, np.float32)
        blue, depth = np.zeros(area, np.float32), np.zeros(area, np.float32)
        for n in range(starts[b, tile], starts[b, tile + 1]):
            record = records[b, listed[n]]
            u, v, half = record[_U] - np.float32(left + 0.5), record[_V] - np.float32(0.5), record[_HALF]
            low = (max(int(np.ceil(v - half)), top) - top) * TILE
            high = (min(int(np.floor(v + half)), bottom - 1) + 1 - top) * TILE
            if high > low:
                _add(
                    through[low:high], red[low:high], green[low:high], blue[low:high], depth[low:high],
                    across[low:high], down[low:high], record, u, np.float32(v - top),
                )  # fmt: skip
            if (n - starts[b, tile]) % _STOP_EVERY == _STOP_EVERY - 1 and through.max() < np.float32(STOP):
                break
        for row in range(top, bottom):
            for column in range(left, min(left + TILE, width)):
                at = (row - top) * TILE + column - left
                behind = through[at]
                covered = np.float32(1.0) - behind
                rgb[b, row, column, 0] = red[at] + behind * background[0]
                rgb[b, row, column, 1] = green[at] + behind * background[1]
                rgb[b, row, column, 2] = blue[at] + behind * background[2]
                coverage[b, row, column] = covered
                depth_m[b, row, column] = depth[at] / covered * unit_m if covered > 0 else np.float32(0.0)

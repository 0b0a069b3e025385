"""Pictures of splats in plain float64 numpy: one Gaussian after another over whole images."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nimbusd.stages.types import F64, Camera, Splats

NEAR_M, BLUR, ALPHA_MIN, ALPHA_MAX, STOP, MARGIN = 0.05, 0.3, 1 / 255, 0.99, 1e-4, 1.3


def reference(
    splats: Splats, camera: Camera, T_world_camera: F64, background: tuple[float, float, float]
) -> tuple[F64, F64, F64]:
    """(H, W, 3) colour, (H, W) expected depth in metres and (H, W) coverage of one frame."""
    unit = splats.unit_m
    T_camera_world = np.diag([1.0, -1.0, -1.0, 1.0]) @ np.linalg.inv(T_world_camera)
    T = T_camera_world @ splats.T_world_splats  # to camera metres, scale included
    R = T[:3, :3] / unit
    centre = splats.means.astype(np.float64) @ T[:3, :3].T + T[:3, 3]
    eye = np.linalg.inv(T)[:3, 3]
    v, u = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    color, depth = np.zeros((camera.height, camera.width, 3)), np.zeros((camera.height, camera.width))
    through = np.ones_like(depth)
    # Nearest first; what is equally deep in float32 keeps its order in the cloud.
    order = np.argsort((centre[:, 2] / unit).astype(np.float32), kind="stable")
    for g in order:
        x, y, z = centre[g]
        opacity = float(splats.opacities[g])
        if z < NEAR_M or opacity < ALPHA_MIN:
            continue
        W = R @ _rotation(splats.quats[g].astype(np.float64)) * splats.scales[g].astype(np.float64) * unit
        tx = np.clip(x / z, -MARGIN * camera.cx / camera.fx, MARGIN * (camera.width - camera.cx) / camera.fx)
        ty = np.clip(y / z, -MARGIN * camera.cy / camera.fy, MARGIN * (camera.height - camera.cy) / camera.fy)
        J = np.array([[camera.fx / z, 0, -camera.fx * tx / z], [0, camera.fy / z, -camera.fy * ty / z]])
        cov3 = W @ W.T
        cov = J @ cov3 @ J.T + BLUR * np.eye(2)
        if np.linalg.det(cov) <= 1e-12 * cov[0, 0] * cov[1, 1]:
            continue
        inverse = np.linalg.inv(cov)
        du, dv = u - (camera.fx * x / z + camera.cx), v - (camera.fy * y / z + camera.cy)
        power = -0.5 * (inverse[0, 0] * du**2 + 2 * inverse[0, 1] * du * dv + inverse[1, 1] * dv**2)
        alpha = np.minimum(opacity * np.exp(power), ALPHA_MAX)
        weight = np.where((alpha >= ALPHA_MIN) & (through >= STOP), alpha * through, 0.0)
        slope = inverse @ (J @ cov3[:, 2])
        seen = splats.means[g].astype(np.float64) - eye
        color += weight[..., None] * shade(splats.sh[g].astype(np.float64), seen / np.linalg.norm(seen))
        depth += weight * (z + slope[0] * du + slope[1] * dv)
        through -= weight
    covered = 1 - through
    depth = np.divide(depth, covered, out=np.zeros_like(depth), where=covered > 0)
    return color + through[..., None] * np.asarray(background), depth, covered


def shade(sh: F64, direction: F64) -> F64:
    """Colour of coefficients (K, 3) along a unit vector, by the general formula of real spherical harmonics."""
    terms = [
        _harmonic(degree, order, direction) * sh[degree * degree + degree + order]
        for degree in range(math.isqrt(len(sh)))
        for order in range(-degree, degree + 1)
    ]
    return np.asarray(np.maximum(np.sum(terms, axis=0) + 0.5, 0.0))


def _harmonic(degree: int, order: int, direction: F64) -> float:
    """Real spherical harmonic with the Condon-Shortley phase, which the 3DGS files use."""
    from scipy.special import assoc_legendre_p

    x, y, z = direction
    m = abs(order)
    phi = math.atan2(y, x)
    legendre = float(np.squeeze(assoc_legendre_p(degree, m, np.clip(z, -1, 1))))
    norm = math.sqrt((2 * degree + 1) / (4 * math.pi) * math.factorial(degree - m) / math.factorial(degree + m))
    if order == 0:
        return norm * legendre
    return math.sqrt(2) * norm * legendre * (math.cos(m * phi) if order > 0 else math.sin(m * phi))


def _rotation(quat: npt.NDArray[np.float64]) -> F64:
    w, x, y, z = quat / np.linalg.norm(quat)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def random_splats(seed: int, count: int, degree: int = 0, spread_m: float = 1.0, size_m: float = 0.05) -> Splats:
    """A ball of Gaussians of all shapes around the origin."""
    rng = np.random.default_rng(seed)
    quats = rng.normal(size=(count, 4))
    sh = rng.normal(scale=0.3, size=(count, (degree + 1) ** 2, 3))
    sh[:, 0] = rng.uniform(-1.2, 1.7, (count, 3))
    return Splats(
        rng.normal(scale=spread_m / 2, size=(count, 3)).astype(np.float32),
        np.exp(rng.normal(np.log(size_m), 0.7, (count, 3))).astype(np.float32),
        (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        rng.uniform(0.02, 1.0, count).astype(np.float32),
        sh.astype(np.float32),
    )


def looking_at(eye: tuple[float, float, float], target: tuple[float, float, float]) -> F64:
    """(4, 4) T_world_camera with the horizon level."""
    back = np.subtract(eye, target).astype(np.float64)
    back /= np.linalg.norm(back)
    right = np.cross((0.0, 0.0, 1.0), back)
    right /= np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :3] = np.column_stack([right, np.cross(back, right), back])
    T[:3, 3] = eye
    return T

"""`CpuRasterizer`: Gaussian splats on the CPU, in batches of frames on all cores."""

from __future__ import annotations

import os
import threading

import numpy as np

from nimbusd.renderers.splats.device import import_numba
from nimbusd.renderers.splats.types import NEAR_M, SplatImages, cameras_to_splats
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import F64, Camera, Rgb, Splats

_BATCH = 16
_RECORDS_BYTES = 1 << 30
"""Address space for the records of a batch; of it only what the cameras see becomes memory."""

_COMPUTING = threading.Lock()
"""numba's own thread pool may be used by one thread at a time."""


class CpuRasterizer:
    """Exactly culled tiles, one radix sort per batch, vectorized blending with early stop. Deterministic.

    threads: 0 for as many as the process may use. pairs: how many Gaussian-tile pairs the last render() blended.
    """

    def __init__(self, threads: int = 0) -> None:
        import_numba()
        self._threads = min(threads or len(os.sched_getaffinity(0)), os.cpu_count() or 1)
        self._splats: Splats | None = None
        self.pairs = 0

    @property
    def device_name(self) -> str:
        return f"CPU ({self._threads} threads)"

    def load(self, splats: Splats) -> None:
        """Use `splats` from now on, without a copy where its arrays are contiguous."""
        self._splats = Splats(
            np.ascontiguousarray(splats.means, np.float32),
            np.ascontiguousarray(splats.scales, np.float32),
            np.ascontiguousarray(splats.quats, np.float32),
            np.ascontiguousarray(splats.opacities, np.float32),
            np.ascontiguousarray(splats.sh, np.float32),
            splats.T_world_splats,
        )

    def close(self) -> None:
        self._splats = None

    def batch(self) -> int:
        """Frames that are drawn at a time."""
        assert self._splats is not None
        from nimbusd.renderers.splats.kernels import RECORD

        return max(1, min(_BATCH, _RECORDS_BYTES // max(1, len(self._splats) * RECORD * 4)))

    def render(self, camera: Camera, T_world_camera: F64, background: Rgb) -> SplatImages:
        """Draw the loaded cloud from each pose; see `Rasterizer`. Raises RenderError where none is loaded."""
        if self._splats is None:
            raise RenderError("no splats are loaded: call load(splats) before render(…)")
        count = len(T_world_camera)
        shape = (count, camera.height, camera.width)
        images = SplatImages(
            np.empty((*shape, 3), np.float32), np.empty(shape, np.float32), np.empty(shape, np.float32)
        )
        self.pairs = 0
        step = self.batch()
        for first in range(0, count, step):
            self._batch(camera, T_world_camera[first : first + step], background, images, first)
        return images

    def _batch(self, camera: Camera, T_world_camera: F64, background: Rgb, images: SplatImages, first: int) -> None:
        import numba

        from nimbusd.renderers.splats import kernels as kernels

        assert self._splats is not None
        cloud = self._splats
        view, position = cameras_to_splats(cloud, np.asarray(T_world_camera, np.float64))
        frames, count = len(view), len(cloud)
        chunks = -(-count // kernels.CHUNK)
        size = np.array([camera.width, camera.height], np.int64)
        intrinsics = np.array([camera.fx, camera.fy, camera.cx, camera.cy])
        tiles = -(-camera.width // kernels.TILE) * -(-camera.height // kernels.TILE)
        records = np.empty((frames, count, kernels.RECORD), np.float32)
        kept, pairs = np.zeros((frames, chunks), np.int64), np.zeros((frames, chunks), np.int64)
        starts = np.empty((frames, tiles + 1), np.int64)
        with _COMPUTING:
            numba.set_num_threads(min(self._threads, _most_threads()))
            with numba.parallel_chunksize(1):
                kernels.project(
                    cloud.means, cloud.scales, cloud.quats, cloud.opacities, cloud.sh, view, position, intrinsics, size,
                    NEAR_M / cloud.unit_m, records, kept, pairs,
                )  # fmt: skip
                by_frame = pairs.sum(axis=1)
                listed = np.empty(int(by_frame.sum()), np.int32)
                kernels.sort_and_bin(records, kept, np.cumsum(by_frame) - by_frame, size, starts, listed)
            with numba.parallel_chunksize(4):
                part = slice(first, first + frames)
                kernels.blend(
                    records, starts, listed, np.asarray(background, np.float32), cloud.unit_m,
                    images.rgb[part], images.depth_m[part], images.coverage[part],
                )  # fmt: skip
        self.pairs += len(listed)


def _most_threads() -> int:
    """The number of threads that numba has in its pool, which it starts with the process."""
    import numba

    return int(vars(numba.config)["NUMBA_NUM_THREADS"])


def warm_up() -> None:
    """Compile the kernels, or fetch them from numba's cache. Takes some tens of seconds the first time."""
    rasterizer = CpuRasterizer(1)
    point = np.zeros((1, 3), np.float32)
    sh = np.zeros((1, 1, 3), np.float32)
    turn = np.array([[1, 0, 0, 0]], np.float32)
    rasterizer.load(Splats(point, point + np.float32(0.1), turn, np.ones(1, np.float32), sh))
    pose = np.eye(4)
    pose[2, 3] = 1.0
    rasterizer.render(Camera("warm", 16, 16, 8.0, 8.0, 8.0, 8.0), pose[None], (0.0, 0.0, 0.0))

"""NumPy's functions that give other bits where their memory lies otherwise: `python -m tests.support.placements`.

Prints JSON. found: instructions that NumPy uses beyond its baseline. placed: functions whose bits depend on where the
memory of a strided input ends and that of the output begins. stored: functions of ours, of those that make stored
numbers, whose results differ from one call to the next with the same numbers. sums: a digest of sums, products and
decompositions, which BLAS and reductions add up.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nimbusd.makers.arithmetic import simd
from nimbusd.stages.plan.timing import DriveLimits, body_velocity, time_path
from nimbusd.stages.store.poses import euler_rows, inverse, pose_rows, transforms_of
from nimbusd.stages.types import F64

COUNT = 13
"""Numbers of an input: neither a whole number of vectors nor less than one."""
FRAMES = 300
BLOCK_BYTES = 16 * FRAMES
"""Room for an output of as many numbers, with its neighbours."""
PLACES = 100


def functions() -> Iterator[tuple[str, Any, list[Any], Any]]:
    """(name, ufunc, inputs, their result with all memory apart), for each real function of one or two inputs."""
    rng = np.random.default_rng(0)
    for name in sorted(vars(np)):
        ufunc = getattr(np, name)
        if not isinstance(ufunc, np.ufunc) or ufunc.nin > 2 or ufunc.nout > 1 or ufunc.signature is not None:
            continue
        for dtype in (np.float32, np.float64):
            inputs: list[Any] = [rng.uniform(0.05, 0.95, COUNT).astype(dtype) for _ in range(ufunc.nin)]
            try:
                with np.errstate(all="ignore"):
                    apart = ufunc(*inputs)
            except TypeError:  # of whole numbers alone
                continue
            if apart.dtype == dtype:
                yield f"{name}({np.dtype(dtype).name})", ufunc, inputs, apart


def placed() -> list[str]:
    """Functions that give other bits for strided inputs, or for an output right behind them or in their gaps."""
    return [name for name, *how in functions() if not _alike_everywhere(*how)]


def _alike_everywhere(ufunc: Any, inputs: list[Any], apart: Any) -> bool:
    size = apart.itemsize
    memory = np.zeros(1 << 14, np.uint8)
    for step in (1, 2, 4, 16):
        span = COUNT * step * size
        # Each right behind the last number, where a strided input still "spans"; then far off; then in its gaps.
        outputs = [((COUNT - 1) * step * size + size * len(inputs), size), (span, size), (span + 64, size)]
        outputs += [(8192, size)] + [(3 * size, step * size)] * (step > 4)
        for begin, stride in outputs:
            views: list[Any] = [
                np.ndarray((COUNT,), apart.dtype, memory, size * number if step > 1 else 4096 * number, (step * size,))
                for number in range(len(inputs))
            ]
            if step == 1 and begin < 4096:
                begin += size * (COUNT - 1)
            for view, values in zip(views, inputs, strict=True):
                view[...] = values
            out: Any = np.ndarray((COUNT,), apart.dtype, memory, begin, (stride,))
            with np.errstate(all="ignore"):
                ufunc(*views, out=out)
            if out.tobytes() != apart.tobytes():
                return False
    return True


def stored() -> list[str]:
    """Functions of ours that give other bits where what they make lies in between the numbers of their input."""
    rng = np.random.default_rng(1)
    turns = np.linalg.qr(rng.normal(size=(FRAMES, 3, 3)))[0]
    turns *= np.linalg.det(turns)[:, None, None]
    T = np.tile(np.eye(4), (FRAMES, 1, 1))
    T[:, :3, :3], T[:, :3, 3] = turns, rng.normal(size=(FRAMES, 3))
    path = np.cumsum(rng.normal(size=(FRAMES, 2)), axis=0)
    limits = DriveLimits(0.8, 0.5, 1.2)
    makers: dict[str, tuple[Callable[[F64], Any], F64]] = {
        "arctan2": (lambda T: np.arctan2(T[:, 1, 0], T[:, 0, 0]), T),  # to see that the trick works
        "pose_rows": (pose_rows, T),
        "euler_rows": (euler_rows, T),
        "inverse": (inverse, T),
        "transforms_of": (transforms_of, pose_rows(T)),
        "time_path": (lambda piece: time_path([piece], limits, 10.0).yaw, path),
        "body_velocity": (lambda piece: body_velocity(time_path([piece], limits, 10.0), 10.0), path),
    }
    return [name for name, (make, values) in makers.items() if len(_results(make, values)) > 1]


def _results(make: Callable[[F64], Any], values: F64) -> set[bytes]:
    """The results of equal numbers in a mapping far from what is made of them, and of `_spread` ones all around it."""
    far: F64 = np.frombuffer(mmap.mmap(-1, values.nbytes), values.dtype).reshape(values.shape)
    far[...] = values
    spread, blocks = _spread(values)
    results = {np.ascontiguousarray(make(far)).tobytes()}
    for _ in range(PLACES):
        results.add(np.ascontiguousarray(make(spread)).tobytes())
        blocks.append(np.empty(FRAMES))  # what the next one makes lies elsewhere
    return results


def _spread(values: F64) -> tuple[F64, list[Any]]:
    """A view of equal numbers whose frames lie in every second of a row of blocks; and these, which hold its memory."""
    blocks: list[Any] = [None] * (8 * len(values))  # it must not grow in between
    for number in range(len(blocks)):
        blocks[number] = np.empty(BLOCK_BYTES, np.uint8)
    blocks.sort(key=_address)
    steps = np.diff([_address(block) for block in blocks])
    ends = [0, *(np.flatnonzero(np.diff(steps)) + 1), len(steps)]
    begin, end = max(itertools.pairwise(ends), key=lambda run: run[1] - run[0])
    assert end - begin >= 2 * len(values), "no row of blocks in which each is as far from the next"
    others = blocks[:begin] + blocks[begin + 2 * len(values) :]
    blocks = blocks[begin : begin + 2 * len(values)]
    step = _address(blocks[2]) - _address(blocks[0])
    blocks = blocks[::2]  # from here on there is room between them
    first = blocks[0][: values[0].nbytes].view(values.dtype).reshape(values.shape[1:])
    spread = np.lib.stride_tricks.as_strided(first, values.shape, (step, *first.strides))
    spread[...] = values
    return spread, [*blocks, *others]


def _address(array: Any) -> int:
    return int(array.ctypes.data)


def sums() -> str:
    """A digest of what linear algebra and reductions make of the same numbers, at every offset to a cache line."""
    rng, digest = np.random.default_rng(3), hashlib.sha256()
    for n in (3, 4, 7, 33, 70):
        a, b = rng.normal(size=(2, n, n))
        for offset in range(0, 64, 8):
            memory = np.zeros(a.nbytes + 64 + offset, np.uint8)
            moved: Any = np.ndarray(a.shape, a.dtype, memory, offset)
            moved[...] = a
            single = moved.astype(np.float32)
            made = [
                moved @ b,
                moved @ b[0],
                b.T @ moved,
                moved[0] @ b[0],
                np.linalg.inv(moved),
                np.linalg.svd(moved)[1],
            ]
            made += [np.linalg.eigh(moved + moved.T)[1], single @ single, moved.sum(axis=0), moved.sum(), single.std()]
            made += [np.einsum("ij,kj->ik", moved, b), np.cumsum(moved), np.linalg.norm(moved, axis=1)]
            parts = [np.ascontiguousarray(part).tobytes() for part in made]
            if offset == 0:
                first = parts
                digest.update(b"".join(parts))
            elif parts != first:
                return f"differs at an offset of {offset} bytes"
    return digest.hexdigest()


def main() -> None:
    json.dump({"found": simd().found, "placed": placed(), "stored": stored(), "sums": sums()}, sys.stdout)


if __name__ == "__main__":
    main()

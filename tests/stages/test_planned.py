"""Planned episodes as files: what is read is what was written, and nothing else passes for one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nimbusd.stages import Camera, Feature, Sequence
from nimbusd.stages.errors import ComponentError
from nimbusd.stages.packing import pack
from nimbusd.stages.planned import PlanFileError, Planned, read_planned, write_planned

ARRAYS = hnp.arrays(
    st.one_of(hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.boolean_dtypes()),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0),
)
NOTES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def sequence(**changes: object) -> Sequence:
    pose = np.eye(4)[None]
    made = Sequence(
        fps=10.0,
        task="Walk about.",
        cameras=(Camera("front", 32, 24, 30.0, 30.0, 16.0, 12.0),),
        T_world_camera={"front": pose},
        T_base_camera={"front": pose[0]},
        states={"observation.state": Feature(np.arange(3, dtype=np.float32)[None], ("x", "y", "z"))},
        actions={"action": Feature(np.zeros((1, 2), ">f8"))},
        T_world_object={"chair": pose},
        notes={"start": [1.0, 2.0]},
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def same(left: object, right: object) -> bool:
    """Equality all the way down, with arrays compared bit for bit, dtype and shape included."""
    if isinstance(left, np.ndarray):
        assert isinstance(right, np.ndarray)
        return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
    if dataclasses.is_dataclass(left):
        return type(left) is type(right) and all(
            same(getattr(left, field.name), getattr(right, field.name)) for field in dataclasses.fields(left)
        )
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return left == right


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(ARRAYS, ARRAYS, NOTES)
def test_what_is_read_is_what_was_written(
    tmp_path: Path, state: np.typing.NDArray[np.generic], moved: np.typing.NDArray[np.generic], notes: object
) -> None:
    given_sequence = sequence(
        states={"a": Feature(state, ("x",)), "b": Feature(moved)}, T_world_object={"o": moved}, notes={"n": notes}
    )
    planned = Planned(given_sequence, {"plan": 0.5}, 1.7e9)
    size_bytes = write_planned(tmp_path / "plan", planned)
    assert size_bytes == (tmp_path / "plan").stat().st_size
    assert same(read_planned(tmp_path / "plan"), planned)
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]


def test_arrays_that_are_not_contiguous_arrive_all_the_same(tmp_path: Path) -> None:
    state = np.arange(24.0).reshape(4, 6)[::2, ::-3]
    write_planned(tmp_path / "plan", Planned(sequence(states={"s": Feature(state)}), {}, 0.0))
    read = read_planned(tmp_path / "plan").sequence.states["s"].values
    np.testing.assert_array_equal(read, state)
    read[0, 0] = 7.0  # ours, to be changed by a renderer as it likes


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ({"a": np.array([object()])}, "array of object"),
        ({"a": np.array(["text"])}, "array of <U4"),
        ({"a": Path("scene.glb")}, "is a pathlib"),
        ({"a": {1, 2}}, "is a builtins.set"),
    ],
)
def test_what_means_nothing_elsewhere_is_refused(tmp_path: Path, notes: dict[str, object], words: str) -> None:
    with pytest.raises(ComponentError, match=words):
        write_planned(tmp_path / "plan", Planned(sequence(notes=notes), {}, 0.0))
    assert not list(tmp_path.iterdir())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_no_damaged_file_passes_silently_or_raises_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "plan"
    write_planned(path, Planned(sequence(), {"plan": 1.0}, 2.0))
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:cut])
    with pytest.raises(PlanFileError, match="holds no planned episode"):
        read_planned(path)
    path.write_bytes(data.draw(st.binary(max_size=200)))
    with pytest.raises(PlanFileError):
        read_planned(path)


def test_a_file_of_another_version_says_so(tmp_path: Path) -> None:
    (tmp_path / "plan").write_bytes(pack((99,)))
    with pytest.raises(PlanFileError, match="version 99, this is version 1"):
        read_planned(tmp_path / "plan")

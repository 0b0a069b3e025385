from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fuzz_meshes import damage_is_told, make_file, problems
from tests.support.slow import quick_first

FILES = 40


@pytest.mark.parametrize("first", quick_first(range(0, 20 * FILES, FILES)))
def test_random_valid_files_load_equal_or_are_refused_by_name_and_damaged_ones_never_crash(
    tmp_path: Path, first: int
) -> None:
    wrong = []
    for seed in range(first, first + FILES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        made = make_file(seed, folder)
        found = problems(made, seed)
        if told := damage_is_told(made, seed):
            found.append(f"damaged: {told}")
        wrong += [f"seed {seed}: {text}" for text in found]
    assert not wrong


def test_the_comparison_sees_a_triangle_that_is_moved_turned_or_recolored(tmp_path: Path) -> None:
    """Proof that the test above can fail, for files of exact triangles and for ones of regions."""
    for seed in (4, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        made = make_file(seed, folder)
        assert not problems(made, seed)
        whole, colors = made.triangles, made.colors
        made.triangles = whole.copy()
        made.triangles[0, 0] += 0.3
        assert problems(made, seed)
        made.triangles = whole.copy()
        made.triangles[0] = whole[0, ::-1]
        assert problems(made, seed)
        made.triangles, made.colors = whole, colors.copy()
        made.colors[0] += 0.05
        assert problems(made, seed)
        made.colors, made.refused = colors, "KHR_something"
        assert problems(made, seed)

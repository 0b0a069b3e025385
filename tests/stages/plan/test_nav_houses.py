"""The planners in loaded houses: generated apartments and a house in 3D-FRONT's format."""

from __future__ import annotations

import numpy as np
import pytest

from nimbusd.stages import PlanningFailed, Scene
from nimbusd.stages.load.apartment.loader import ApartmentArgs, ApartmentConfig, ApartmentLoader
from nimbusd.stages.load.front3d.loader import BProc3DFrontLoader, Front3DArgs, Front3DConfig
from nimbusd.stages.plan.front3d import BProc3DFrontArgs, BProc3DFrontPlanner
from nimbusd.stages.plan.nav import NavArgs, NavPlanner
from nimbusd.stages.types import F64
from tests.support.front3d_house import write_house


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    paths = write_house(tmp_path_factory.mktemp("house"))
    config = Front3DConfig(name="house", house=paths.house, furniture=paths.furniture, textures=paths.textures)
    return BProc3DFrontLoader(Front3DArgs()).load_asset(config)


def apartment(seed: int, rooms: int = 4) -> Scene:
    return ApartmentLoader(ApartmentArgs(texture_px=16)).load_asset(ApartmentConfig(name="a", seed=seed, rooms=rooms))


def crosses(path: F64, low: tuple[float, float], high: tuple[float, float]) -> bool:
    """Does a polyline have a point between two corners? Its points are closer than a door is wide."""
    return bool(((path >= low) & (path <= high)).all(axis=1).any())


@pytest.mark.parametrize("seed", range(2))
def test_drives_in_a_front3d_house_go_through_its_doors(house: Scene, seed: int) -> None:
    args = BProc3DFrontArgs(start_rooms=("MasterBedroom",), goal_rooms=("dining_room",), max_frames=300)
    sequence = BProc3DFrontPlanner(args).gen_sequence(house, np.random.default_rng(seed))
    path = np.array(sequence.notes["path_xy"])
    assert path[0, 0] > 5.2
    assert path[-1, 1] > 4.2
    assert crosses(path, (5.0, 0.6), (5.2, 1.6))
    assert crosses(path, (3.6, 4.0), (4.6, 4.2))


def test_a_front3d_house_has_one_floor_whose_rooms_are_connected(house: Scene) -> None:
    (floor,) = NavPlanner(NavArgs()).floors(house)
    assert floor.z_m == pytest.approx(0.0, abs=1e-3)
    assert floor.region.max() == 1
    assert set(np.unique(floor.room[floor.free])) - {-1} == {0, 1, 2}


@pytest.mark.parametrize("seed", range(2))
def test_generated_apartments_have_a_way_into_every_room(seed: int) -> None:
    scene = apartment(seed)
    (floor,) = NavPlanner(NavArgs()).floors(scene)
    reached = floor.room[floor.region == np.bincount(floor.region[floor.free]).argmax()]
    assert set(np.unique(reached)) - {-1} == set(range(len(scene.rooms)))


def test_most_seeds_give_a_drive_in_an_apartment() -> None:
    scene = apartment(1)
    planner = NavPlanner(NavArgs())
    planned = 0
    tasks = set()
    for seed in range(10):
        try:
            sequence = planner.gen_sequence(scene, np.random.default_rng(seed))
        except PlanningFailed:
            continue
        planned += 1
        tasks.add(sequence.task)
    assert planned >= 9
    assert len(tasks) >= 4

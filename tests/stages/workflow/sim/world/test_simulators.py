"""The contract that skills rely on, whichever simulator computes the physics: `Simulator`, on MuJoCo and on SAPIEN."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from nimbusd.stages.errors import AssetError, BackendUnavailable
from nimbusd.stages.types import F64
from nimbusd.stages.workflow import EnvLoader
from nimbusd.stages.workflow.env_components import EnvLoaderArgs, EnvSceneConfig
from nimbusd.stages.workflow.sim import plan_episode, randomize_layout
from nimbusd.stages.workflow.sim.models.robots import ROBOTS
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.rotation import rotation_vector
from nimbusd.stages.workflow.sim.world.mujoco_simulator import MujocoSimulator
from nimbusd.stages.workflow.sim.world.sapien_bodies import import_sapien
from nimbusd.stages.workflow.sim.world.sapien_simulator import SapienSimulator
from nimbusd.stages.workflow.sim.world.simulation import Simulation
from nimbusd.stages.workflow.sim.world.simulator import SIMULATORS, Simulator
from nimbusd.stages.workflow.sim.world.world import World, build_world
from tests.support.manip_worlds import cube_into_area, put, require_simulation, task_of

require_simulation()
pytestmark = pytest.mark.mujoco
CUBE = {"name": "cube", "models": ["cube"], "size_m": [0.06, 0.06, 0.03], "x_m": [0.45, 0.5], "y_m": [-0.1, 0.1]}
MILK = {"name": "milk", "models": ["milk"], "x_m": [0.45, 0.5], "y_m": [0.2, 0.3]}


@pytest.fixture(params=sorted(SIMULATORS))
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "sapien":
        need_sapien()
    return str(request.param)


def need_sapien() -> None:
    if find_spec("sapien") is None:  # not imported here, since its libraries would be the process's
        pytest.skip("SAPIEN is not installed (pip install 'nimbusd[sapien]')")


def world_of(name: str, *slots: dict[str, Any]) -> World:
    task = task_of([{"skill": "home"}], list(slots), physics={"simulator": name})
    return build_world(randomize_layout(task, np.random.default_rng(0)))


def run(simulation: Simulation, seconds: float) -> None:
    physics = simulation.simulator
    for _ in range(round(seconds / simulation.world.layout.physics.timestep_s)):
        physics.step(simulation.targets)


def lifted(simulation: Simulation, name: str, by_m: float) -> F64:
    """The state with an object raised."""
    qpos = simulation.qpos
    qpos[simulation.world.objects[name].free_q + 2] += by_m
    return qpos


def owners(simulation: Simulation) -> list[tuple[str, str, bool, float]]:
    """Touches: owners in alphabetical order, True for a firm one, and the force."""
    found, owner = simulation.simulator.contacts(), simulation.world.owner
    return [
        (*sorted((owner[a], owner[b])), bool(firm), simulation.simulator.force_n(number))
        for number, ((a, b), touching, firm) in enumerate(
            zip(found.geoms.tolist(), found.touching, found.firm, strict=True)
        )
        if touching
    ]


def test_it_starts_where_the_layout_does_and_bodies_are_where_the_model_puts_them(name: str) -> None:
    world = world_of(name, CUBE, MILK, {"name": "drawer", "models": ["drawer"], "joint": 0.5, "x_m": [0.68, 0.7]})
    simulation = Simulation(world)
    assert simulation.simulator.name == name
    assert simulation.simulator.version
    assert simulation.qpos == pytest.approx(world.start, abs=1e-6)
    assert np.array_equal(simulation.simulator.qvel, np.zeros(world.model.nv))
    run(simulation, 0.1)
    mujoco = import_mujoco()
    data = mujoco.MjData(world.model)
    data.qpos[:] = simulation.qpos
    mujoco.mj_kinematics(world.model, data)
    for body in range(world.model.nbody):
        assert simulation.body_pose(body)[:3, 3] == pytest.approx(data.xpos[body], abs=1e-4)
        assert simulation.body_pose(body)[:3, :3].ravel() == pytest.approx(data.xmat[body], abs=1e-3)


def test_gravity_pulls_at_things_and_not_at_the_robot(name: str) -> None:
    simulation = Simulation(world_of(name, CUBE, MILK))
    index, arm = simulation.world.objects["cube"], simulation.world.arm("")
    start = lifted(simulation, "cube", 0.3)
    put(simulation, start)
    run(simulation, 0.2)
    fallen = start[index.free_q + 2] - simulation.qpos[index.free_q + 2]
    assert fallen == pytest.approx(9.81 * 0.2**2 / 2, rel=0.02)
    assert simulation.simulator.qvel[index.free_v + 2] == pytest.approx(-9.81 * 0.2, rel=0.01)
    assert simulation.joints(arm) == pytest.approx(start[arm.q], abs=1e-3)


def test_what_lies_on_the_table_presses_on_it_with_its_weight_and_stays(name: str) -> None:
    simulation = Simulation(world_of(name, CUBE, MILK))
    run(simulation, 1.0)
    before = simulation.qpos
    run(simulation, 1.0)
    assert np.abs(simulation.qpos - before).max() < 1e-3
    for thing in ("cube", "milk"):
        touches = [(a, b, firm, force) for a, b, firm, force in owners(simulation) if thing in (a, b)]
        assert {(a, b) for a, b, _, _ in touches} == {tuple(sorted((thing, "table")))}
        weight = simulation.world.layout.object(thing).mass_kg * 9.81
        assert sum(force for *_, force in touches) == pytest.approx(weight, rel=0.05)
        assert not any(firm for _, _, firm, _ in touches)
        assert simulation.touches(thing) == {"table"}
    assert simulation.speed_of("cube") < 0.01


def test_velocities_are_those_with_which_positions_change(name: str) -> None:
    simulation = Simulation(world_of(name, CUBE, MILK))  # the milk's centre of mass is not its body's origin
    index, step_s = simulation.world.objects["milk"], simulation.world.layout.physics.timestep_s
    qvel = np.zeros(simulation.world.model.nv)
    qvel[index.free_v : index.free_v + 6] = [0.3, -0.2, 0.5, 2.0, -3.0, 4.0]
    put(simulation, lifted(simulation, "milk", 0.3), qvel)
    assert simulation.simulator.qvel == pytest.approx(qvel, abs=1e-5)
    body, physics = index.body, simulation.simulator
    run(simulation, 0.05)
    address = slice(index.free_q, index.free_q + 3)
    p0, T0 = simulation.qpos[address], pose_of(simulation, body)
    run(simulation, step_s)
    p1, T1 = simulation.qpos[address], pose_of(simulation, body)
    moving = physics.qvel[index.free_v : index.free_v + 6]
    assert moving[:3] == pytest.approx((p1 - p0) / step_s, abs=0.02)
    assert moving[3:] == pytest.approx(rotation_vector(T0[:3, :3].T @ T1[:3, :3]) / step_s, abs=0.05)


def pose_of(simulation: Simulation, body: int) -> F64:
    """The pose at which `qpos` puts a body."""
    mujoco = import_mujoco()
    data = mujoco.MjData(simulation.world.model)
    data.qpos[:] = simulation.qpos
    mujoco.mj_kinematics(simulation.world.model, data)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = data.xmat[body].reshape(3, 3), data.xpos[body]
    return T


def test_servos_bring_joints_and_fingers_to_their_set_points(name: str) -> None:
    simulation = Simulation(world_of(name, CUBE))
    arm = simulation.world.arm("")
    goal = simulation.joints(arm) + np.array([0.2, -0.1, 0.15, 0.1, -0.2, 0.1, 0.3])
    simulation.targets[arm.servos] = goal
    simulation.targets[arm.finger_servos] = arm.finger_targets(0.02)
    run(simulation, 1.5)
    assert simulation.joints(arm) == pytest.approx(goal, abs=2e-3)
    assert simulation.opening(arm) == pytest.approx(0.02, abs=2.5e-3)  # dry friction of the fingers takes 1 mm each


@pytest.mark.parametrize("robot", sorted(ROBOTS))
def test_every_robot_follows_its_servos_and_does_not_touch_itself(name: str, robot: str) -> None:
    task = task_of([{"skill": "home"}], [CUBE], physics={"simulator": name}, robot=robot)
    simulation = Simulation(build_world(randomize_layout(task, np.random.default_rng(0))))
    for arm in simulation.world.arms.values():
        simulation.targets[arm.servos] += 0.1
    run(simulation, 1.0)
    for arm in simulation.world.arms.values():
        assert simulation.joints(arm) == pytest.approx(simulation.targets[arm.servos], abs=2e-3)
    assert not [touch for touch in owners(simulation) if touch[0] == touch[1]]


def test_a_thing_that_slides_is_stopped_by_friction(name: str) -> None:
    simulation = Simulation(world_of(name, CUBE))
    run(simulation, 0.5)
    index, speed = simulation.world.objects["cube"], 0.4
    start, qvel = simulation.qpos, np.zeros(simulation.world.model.nv)
    qvel[index.free_v] = speed
    put(simulation, start, qvel)
    run(simulation, 0.5)
    gone = simulation.qpos[index.free_q] - start[index.free_q]
    frictions = simulation.world.layout.object("cube").friction, simulation.world.layout.table.friction
    least, most = (speed**2 / (2 * 9.81 * friction) for friction in (max(frictions), min(frictions)))
    assert 0.7 * least < gone < 1.5 * most
    assert simulation.speed_of("cube") < 0.01


def test_joints_of_fixtures_keep_their_limits_and_brake_and_spring_as_they_should(name: str) -> None:
    far = {"x_m": [0.68, 0.7], "y_m": [-0.05, 0.05], "yaw_rad": [0.0, 0.0]}
    beside = {"x_m": [0.4, 0.45], "y_m": [0.25, 0.3]}
    world = world_of(
        name,
        {"name": "drawer", "models": ["drawer"], "joint": 0.3, **far},
        {"name": "button", "models": ["button"], **beside},
    )
    simulation = Simulation(world)
    assert not [entry for entry in owners(simulation) if entry[0] == entry[1]]
    run(simulation, 0.3)
    assert simulation.joint_of("drawer") == pytest.approx(0.3 * 0.14, abs=1e-3)  # dry friction holds it
    drawer, button = (world.objects[word].joint_q for word in ("drawer", "button"))
    address = {word: int(world.model.joint(f"object/{word}/joint").dofadr[0]) for word in ("drawer", "button")}
    qpos, qvel = simulation.qpos, np.zeros(world.model.nv)
    qpos[drawer], qpos[button], qvel[address["drawer"]] = 0.042, 0.012, 0.2
    put(simulation, qpos, qvel)
    run(simulation, 0.5)
    # m dv/dt = -1 N - 6 v, with m = 0.56 kg of parts and 0.05 kg of armature
    mass, drag, dry = 0.61, 6.0, 1.0
    stop = mass / drag * (0.2 - dry / drag * np.log(1 + drag * 0.2 / dry))
    assert simulation.joint_of("drawer") - 0.042 == pytest.approx(stop, rel=0.25)
    assert simulation.joint_of("button") == pytest.approx(0.03 * 9.81 / 250, abs=1e-4)  # its cap weighs on its spring
    qvel[address["drawer"]] = 3.0
    put(simulation, qpos, qvel)
    run(simulation, 0.5)
    assert 0.12 < simulation.joint_of("drawer") < 0.141


def test_what_follows_a_state_depends_on_it_alone(name: str) -> None:
    world = world_of(name, CUBE, MILK)
    simulation, other = Simulation(world), Simulation(world)
    put(simulation, lifted(simulation, "cube", 0.05))
    run(simulation, 0.2)
    state, targets = simulation.simulator.get_state(), simulation.targets
    pushed = targets.copy()
    pushed[simulation.world.arm("").servos] += 0.05

    def onwards(simulator: Simulator) -> tuple[bytes, bytes, list[Any]]:
        for _ in range(60):
            simulator.step(pushed)
        return simulator.qpos.tobytes(), simulator.qvel.tobytes(), simulator.contacts().geoms.tolist()

    simulation.simulator.set_state(state)
    touching = owners(simulation)
    assert {(a, b) for a, b, _, _ in touching} >= {("milk", "table")}  # known before the first step
    first = onwards(simulation.simulator)
    simulation.simulator.set_state(state)
    assert onwards(simulation.simulator) == first
    put(other, lifted(other, "milk", 0.1))
    run(other, 0.1)
    other.simulator.set_state(state)
    assert onwards(other.simulator) == first


def test_things_that_lie_in_a_heap_have_no_speed(name: str) -> None:
    box = {"name": "box", "models": ["bin"], "x_m": [0.5, 0.5], "y_m": [0.0, 0.0], "yaw_rad": [0.0, 0.0]}
    beside = {"x_m": [0.3, 0.75], "y_m": [0.2, 0.5]}
    other_side = {**beside, "y_m": [-0.5, -0.2]}
    cubes = [
        {"name": f"cube{k}", "models": ["cube"], "size_m": [0.055] * 3, **(beside if k % 2 else other_side)}
        for k in range(7)
    ]
    simulation = Simulation(world_of(name, box, *cubes))
    qpos, above = simulation.qpos, simulation.object_pose("box")[:3, 3] + np.array([0.0, 0.0, 0.1])
    for k in range(7):
        address, turn = simulation.world.objects[f"cube{k}"].free_q, np.array([1.0, 0.3, 0.2 * k, 0.1])
        place = np.add(above, [0.02 * (-1) ** k, 0.03 * (k % 3 - 1), 0.06 * k])
        qpos[address : address + 7] = [*place, *(turn / np.linalg.norm(turn))]
    put(simulation, qpos)
    run(simulation, 2.5)
    before = simulation.qpos
    run(simulation, 0.1)
    assert np.abs(simulation.qpos - before).max() < 1e-3
    assert max(simulation.speed_of(f"cube{k}") for k in range(7)) < 0.01


def test_a_state_that_is_no_longer_to_be_believed_is_told(
    name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warning into the current folder
    simulation = Simulation(world_of(name, CUBE))
    run(simulation, 0.1)
    assert not simulation.simulator.diverged()
    put(simulation, simulation.qpos, np.full(simulation.world.model.nv, 1e12))
    run(simulation, 0.05)
    assert simulation.simulator.diverged()


def test_a_hand_that_is_driven_into_the_table_presses_firmly(name: str) -> None:
    simulation = Simulation(world_of(name, MILK))
    arm = simulation.world.arm("")
    for _ in range(50):
        simulation.targets[arm.servos[1]] += 0.03  # the shoulder leans forwards
        run(simulation, 0.05)
        if any(firm and {a, b} == {"robot/arm", "table"} for a, b, firm, _ in owners(simulation)):
            return
    pytest.fail("the hand went into the table, and nobody was told")


DIGEST = (
    "import hashlib; from tests.stages.workflow.sim.world.test_simulators import planned_bytes; "
    "print(hashlib.sha256(planned_bytes({name!r})).hexdigest())"
)


def planned_bytes(name: str) -> bytes:
    task = cube_into_area(simulator=name)
    rng = np.random.default_rng(1)
    demo = plan_episode(task, randomize_layout(task, rng), rng)
    assert demo.reached == ("cube in area",)
    assert demo.facts["simulator"].split()[0] == name
    height = demo.T_world_object["cube"][:, 2, 3]
    assert height.max() > height[0] + 0.08
    assert {"robot/arm", "cube"} in [{event.a, event.b} for event in demo.contacts]
    return demo.qpos.tobytes() + demo.qvel.tobytes() + repr(demo.contacts).encode()


def test_an_episode_reaches_its_goal_with_the_same_bytes_in_another_process_and_after_others(name: str) -> None:
    first = planned_bytes(name)
    script = DIGEST.format(name=name)
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert hashlib.sha256(first).hexdigest() == other
    assert planned_bytes(name) == first


# --- SAPIEN's bodies, from any model ---

SWING = """<mujoco><option timestep="0.002" integrator="implicitfast"/><worldbody>
  <body pos="0.1 0.2 1" quat="0.9 0.1 0.3 0.2"><geom type="box" size=".02 .02 .02" contype="0" conaffinity="0"/>
    <body pos="0.05 0 0.1"><joint type="hinge" axis="1 2 0.5" pos="0 0.01 0" ref="0.3" armature="0.01"/>
      <geom type="capsule" fromto="0 0 0 0.2 0.1 0" size="0.02" contype="0" conaffinity="0"/>
      <body pos="0.2 0.1 0" quat="0.8 0 0.5 0.1"><geom type="sphere" size="0.03" contype="0" conaffinity="0"/>
        <body pos="0 0 0.1"><joint type="slide" axis="0 1 1" range="-0.1 0.1" limited="true"/>
          <geom type="cylinder" size="0.03 0.05" contype="0" conaffinity="0"/>
        </body></body></body></body>
</worldbody></mujoco>"""

SHAPES = """<mujoco><option timestep="0.002"/>
<asset><mesh name="m" vertex="0 0 0 .1 0 0 0 .1 0 0 0 .1 .1 .1 .05"/></asset>
<worldbody><geom type="plane" size="3 3 .1" pos="0 0 0.1"/>
  <body name="box" pos="0 0 0.4" quat="0.7071 0.7071 0 0"><freejoint/><geom type="box" size=".03 .05 .02"/></body>
  <body name="sphere" pos="1 0 0.4"><freejoint/><geom type="sphere" size=".05"/></body>
  <body name="capsule" pos="2 0 0.4"><freejoint/><geom type="capsule" euler="0 90 0" size=".03 .1"/></body>
  <body name="cylinder" pos="0 1 0.4"><freejoint/><geom type="cylinder" size=".05 .03"/></body>
  <body name="mesh" pos="1 1 0.4"><freejoint/><geom type="mesh" mesh="m"/></body>
</worldbody></mujoco>"""


def both(xml: str) -> tuple[MujocoSimulator, SapienSimulator]:
    need_sapien()
    world: Any = SimpleNamespace(model=import_mujoco().MjModel.from_xml_string(xml))
    simulators = MujocoSimulator(world), SapienSimulator(world)
    for simulator in simulators:
        simulator.reset(np.array(world.model.qpos0), np.zeros(world.model.nv), np.zeros(0))
    return simulators


def test_skew_joints_welded_parts_and_inertias_swing_as_mujocos_do() -> None:
    mujoco, sapien = both(SWING)
    gone = 0.0
    for _ in range(150):
        mujoco.step(np.zeros(0))
        sapien.step(np.zeros(0))
        assert sapien.qpos == pytest.approx(mujoco.qpos, abs=0.01)
        gone = max(gone, float(np.abs(mujoco.qpos - [0.3, 0.0]).max()))
    assert gone > 0.3
    assert sapien.qpos[1] == pytest.approx(0.1, abs=0.02) or sapien.qpos[1] == pytest.approx(mujoco.qpos[1], abs=0.01)


def test_every_shape_comes_to_rest_at_its_height() -> None:
    mujoco, sapien = both(SHAPES)
    for _ in range(1000):
        mujoco.step(np.zeros(0))
        sapien.step(np.zeros(0))
    heights = [simulator.qpos[2::7] for simulator in (mujoco, sapien)]
    assert heights[1] == pytest.approx(heights[0], abs=0.003)
    assert heights[1][:4] == pytest.approx([0.15, 0.15, 0.13, 0.13], abs=0.003)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            '<body name="a"><joint name="j"/><geom size=".1"/></body><body name="b"><joint name="k"/><geom size=".1"/>'
            '</body></worldbody><equality><joint joint1="j" joint2="k"/></equality><worldbody>',
            "the robot couples joints",
        ),
        ('<body name="b"><joint name="j" type="ball"/><geom size=".1"/></body>', "joint 'j' is neither a hinge"),
        (
            '<body name="b"><joint axis="1 0 0"/><joint axis="0 1 0"/><geom size=".1"/></body>',
            "body 'b' has several joints",
        ),
        (
            '<body name="b"><freejoint/><geom name="g" type="ellipsoid" size=".1 .1 .2"/></body>',
            "collision shape of 'g'",
        ),
    ],
)
def test_what_sapien_has_no_counterpart_of_is_refused_by_name(body: str, sentence: str) -> None:
    need_sapien()
    with pytest.raises(AssetError, match=f"{sentence}.*simulate with mujoco"):
        both(f"<mujoco><worldbody>{body}</worldbody></mujoco>")


def test_bodies_that_are_excluded_from_touching_do_not_and_others_do() -> None:
    chain = "".join(
        f'<body name="{word}" pos="{x} 0 0"><joint type="slide" axis="0 0 1"/><geom type="box" size=".1 .1 .1"/></body>'
        for word, x in (("a", 0.0), ("b", 0.1), ("c", 0.25))
    )
    excluded = '<contact><exclude body1="a" body2="b"/></contact>'
    for simulator in both(f'<mujoco><option gravity="0 0 0"/><worldbody>{chain}</worldbody>{excluded}</mujoco>'):
        simulator.step(np.zeros(0))
        found = simulator.contacts()
        assert {tuple(sorted(pair)) for pair in found.geoms[found.touching].tolist()} == {(1, 2)}


def test_sapien_that_is_not_installed_is_one_sentence_and_check_warns_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = {"name": "home", "skills": [{"skill": "home"}], "instructions": ["Go home."]}
    tasks = [home, home | {"physics": {"simulator": "sapien"}}, home | {"planner": "curobo"}]
    (tmp_path / "tasks.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    for module in ("sapien", "curobo"):
        monkeypatch.setitem(sys.modules, module, None)
    loader = EnvLoader(EnvLoaderArgs(workflow_type="ManipWorkflow"))
    told = [
        loader.asset_warnings(EnvSceneConfig(name="t", cfg_path=tmp_path / "tasks.yaml", task=task))
        for task in range(3)
    ]
    assert told[0] == []
    assert "needs the Python module 'sapien', which is not installed here: pip install 'nimbusd[sapien]'" in told[1][0]
    assert "needs the Python module 'curobo', which is not installed here" in told[2][0]
    with pytest.raises(BackendUnavailable, match=r"needs SAPIEN 3 .*pip install 'nimbusd\[sapien\]'"):
        import_sapien()


def test_blender_loads_in_a_process_in_which_sapien_simulated() -> None:
    """Both bring a library of one name, and the process keeps the first; see sapien_package."""
    need_sapien()
    if find_spec("bpy") is None:
        pytest.skip("Blender is not installed (pip install 'nimbusd[blender]')")
    program = (
        "from nimbusd.stages.workflow.sim.world.sapien_bodies import import_sapien\n"
        "sapien = import_sapien()\n"
        "sapien.Scene([sapien.physx.PhysxCpuSystem()])\n"
        "from nimbusd.renderers.blender.device import import_bpy\n"
        "import_bpy()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

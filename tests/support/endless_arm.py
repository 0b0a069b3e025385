"""An arm of seven joints, four of which turn without end, as many small arms have; with a Panda hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nimbusd.stages.workflow.sim.models.robots import PANDA_GRIPPER

ENDLESS = (0, 2, 4, 6)
"""Its joints without limits."""
LINKS_M = (0.20, 0.14, 0.21, 0.19, 0.20, 0.20, 0.08)
"""From each joint to the next one, the last to the flange."""


def _mjcf() -> str:
    text, close = "", ""
    for number, length in enumerate(LINKS_M):
        endless = number in ENDLESS
        joint = 'axis="0 0 1" limited="false"' if endless else 'axis="0 1 0" limited="true" range="-2.6 2.6"'
        before = LINKS_M[number - 1] if number else 0.10
        text += (
            f'<body name="link{number}" pos="0 0 {before}"><joint name="turn{number}" {joint} damping="0.5"/>'
            f'<geom type="cylinder" size="0.03 {0.3 * length}" pos="0 0 {length / 2}" mass="0.8"/>'
        )
        close += "</body>"
    flange = f'<body name="flange" pos="0 0 {LINKS_M[-1]}"><geom type="sphere" size="0.01" mass="0.05"/></body>'
    base = '<geom type="cylinder" size="0.05 0.04" pos="0 0 0.04" mass="3"/>'
    return (
        '<mujoco model="endless"><compiler angle="radian"/><worldbody>'
        f'<body name="foot">{base}{text}{flange}{close}</body></worldbody></mujoco>'
    )


def endless_robot(folder: Path) -> dict[str, Any]:
    """Its configuration as a task file has it. The model is written into `folder`."""
    path = folder / "endless.xml"
    path.write_text(_mjcf())
    return {
        "noun": "arm without ends",
        "parts": [{"mjcf": str(path)}],
        "arms": {
            "arm": {
                "joints": [f"turn{number}" for number in range(7)],
                "flange": "flange",
                "base": "foot",
                "gripper": PANDA_GRIPPER.model_dump(mode="json"),
                "home": [0.0, 0.35, 0.0, 1.7, 0.0, 1.0916, 0.0],
                "kp": [4500, 4500, 3500, 3500, 2000, 2000, 2000],
                "force_nm": [87, 87, 87, 87, 30, 30, 30],
                "velocity": [1.7] * 7,
                "acceleration": [5.0] * 7,
            }
        },
    }

"""Writes a dataset with the real `lerobot` package and prints how long it took, as JSON.

Run by `tests.benchmarks.writer` in an interpreter that has lerobot; it imports nothing of nimbusd.
usage: lerobot_writer.py FRAMES.npy STATES.npy ROOT video|image EPISODES FPS
"""

import importlib
import importlib.util
import json
import os
import pathlib
import re
import sys
import time
from typing import Any

import numpy as np

_kept: list[Any] = []
_CAMERA = "observation.images.front"


def lerobot_dataset() -> Any:
    """The class LeRobotDataset, also where torchvision came without its compiled operators."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch = importlib.import_module("torch")
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # its Python half describes operators that nobody declared
        for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[module]  # half imported
        spec = importlib.util.find_spec("torchvision")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        text = pathlib.Path(spec.submodule_search_locations[0], "_meta_registrations.py").read_text()
        names = set(re.findall(r"torchvision::(\w+)", text)) | set(re.findall(r'register_meta\("(\w+)"', text))
        library = torch.library.Library("torchvision", "DEF")
        for name in sorted(names | {"nms"}):
            library.define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
        _kept.append(library)  # declarations last as long as this object
    return importlib.import_module("lerobot.datasets.lerobot_dataset").LeRobotDataset


def main(frames_file: str, states_file: str, root: str, media: str, episodes: int, fps: int) -> None:
    cls = lerobot_dataset()
    frames, states = np.load(frames_file), np.load(states_file)
    features = {
        "observation.state": {"dtype": "float32", "shape": (states.shape[1],), "names": None},
        "action": {"dtype": "float32", "shape": (states.shape[1],), "names": None},
        _CAMERA: {"dtype": media, "shape": frames.shape[1:], "names": ["height", "width", "channels"]},
    }
    start = time.perf_counter()
    dataset = cls.create(
        "local/benchmark", fps, features, root=root, use_videos=media == "video", image_writer_threads=4
    )
    for _ in range(episodes):
        for image, state in zip(frames, states, strict=True):
            dataset.add_frame({"observation.state": state, "action": state, _CAMERA: image, "task": "turn"})
        dataset.save_episode()
    dataset.finalize()
    print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    _, frames_arg, states_arg, root_arg, media_arg, episodes_arg, fps_arg = sys.argv
    main(frames_arg, states_arg, root_arg, media_arg, int(episodes_arg), int(fps_arg))

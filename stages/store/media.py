"""Arguments that all writers share: the storing of frames and the size of files; and the settings made of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from nimbusd.stages.base import ComponentArgs
from nimbusd.stages.notes import Notes
from nimbusd.stages.store.encode import VideoSettings, encoder_refusals
from nimbusd.stages.types import Sequence

_MOST_THREADS = 4
# The default presets spend twice the time (AV1) for 0.1 to 0.25 dB more at the same crf.
_PRESETS = {"av1": "12", "h264": "veryfast"}


@dataclass(frozen=True, slots=True)
class ContentSettings:
    """The parts of an observation that are stored, and how.

    media: RGB as video or as PNG. video: the encoder's settings. depth, segmentation: keep them where the renderer made
    them. robot: its type. threads: for encoding; 0 takes what there is.
    """

    media: Literal["video", "image"] = "video"
    video: VideoSettings = field(default_factory=VideoSettings)
    depth: bool = True
    segmentation: bool = True
    robot: str = "mobile_base"
    threads: int = 0

    @property
    def pool_size(self) -> int:
        return self.threads or min(_MOST_THREADS, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True)
class FileSizes:
    """Sizes that the files of a final dataset aim at."""

    data_mb: int = 100
    video_mb: int = 200


class MediaArgs(ComponentArgs):
    """Arguments that all writers share: the storing of frames, and the size of files."""

    media: Literal["video", "image"] = Field(
        default="video",
        description="RGB as one video per episode, or as lossless PNG (InternData-N1: always JPEG).",
    )
    codec: Literal["av1", "h264"] = Field(default="av1", description="Video codec (SVT-AV1 or x264).")
    crf: int = Field(default=30, ge=0, le=63, description="Video quality; lower is better.")
    gop: int = Field(default=2, ge=1, le=300, description="Frames per key frame; 2 makes random access cheap.")
    preset: str | None = Field(default=None, description="Encoder preset; by default one chosen for speed.")
    pix_fmt: str = Field(default="yuv420p", description="Pixel format of videos.")
    threads: int = Field(default=0, ge=0, le=64, description="Threads for encoding an episode; 0 uses what is there.")
    depth: bool = Field(default=True, description="Store the depth that the renderer made.")
    segmentation: bool = Field(default=True, description="Store the segmentation that the renderer made.")
    data_file_mb: int = Field(default=100, ge=1, description="Size that data files aim at (v3.0, final dataset).")
    video_file_mb: int = Field(default=200, ge=1, description="Size that video files aim at (v3.0, final dataset).")

    def robot(self, seq: Sequence) -> str:
        """The robot's type in the dataset's metadata: what the planner calls it."""
        return robot_type_of(seq)

    def content(self, robot: str) -> ContentSettings:
        """The parts of an observation that are stored, and how."""
        preset = self.preset or _PRESETS[self.codec]
        video = VideoSettings(self.codec, self.crf, self.gop, preset, self.pix_fmt, self.threads)
        return ContentSettings(self.media, video, self.depth, self.segmentation, robot, self.threads)

    def refused_sizes(self, sizes: dict[str, tuple[int, int]]) -> list[str]:
        """A sentence of the encoder for each video of these sizes (camera → width and height) that it refuses."""
        return encoder_refusals(sizes, self.content("").video) if self.media == "video" else []

    @property
    def sizes(self) -> FileSizes:
        return FileSizes(self.data_file_mb, self.video_file_mb)


def robot_type_of(seq: Sequence) -> str:
    """The type that the sequence's note `robot` gives, or `unknown`."""
    return Notes(seq.notes).robot_type or "unknown"

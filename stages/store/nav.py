"""`NavWriter`: navigation episodes as LeRobot v3.0, LeRobot v2.1 or InternData-N1 datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from nimbusd.stages.base import BaseWriter, ComponentArgs
from nimbusd.stages.store.encode import VideoSettings
from nimbusd.stages.store.interndata_n1 import build_n1, write_n1
from nimbusd.stages.store.lerobot import ContentSettings, write_lerobot
from nimbusd.stages.store.piece import draft_piece
from nimbusd.stages.store.publish import publish_pieces
from nimbusd.stages.store.publish_v21 import build_v21
from nimbusd.stages.store.publish_v30 import FileSizes, build_v30
from nimbusd.stages.store.record import StoredPiece
from nimbusd.stages.types import Episode, Observation, Piece, Sequence

FormatName = Literal["lerobot-v3.0", "lerobot-v2.1", "interndata-n1"]
# The default presets spend twice the time (AV1) for 0.1 to 0.25 dB more at the same crf.
_PRESETS = {"av1": "12", "h264": "veryfast"}


class NavWriterArgs(ComponentArgs):
    """How navigation episodes are stored."""

    format: FormatName = Field(default="lerobot-v3.0", description="Dataset format to publish.")
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
    robot_type: str = Field(default="mobile_base", description="`robot_type` of the dataset.")
    data_file_mb: int = Field(default=100, ge=1, description="Size that data files aim at (v3.0, final dataset).")
    video_file_mb: int = Field(default=200, ge=1, description="Size that video files aim at (v3.0, final dataset).")
    jpeg_quality: int = Field(default=95, ge=1, le=100, description="Quality of InternData-N1's RGB frames.")
    obstacle_low_m: float = Field(default=0.1, ge=0, description="Lowest height of obstacles in N1's point cloud.")
    obstacle_high_m: float = Field(default=1.2, gt=0, description="Greatest height of obstacles in N1's point cloud.")


class NavWriter(BaseWriter[NavWriterArgs]):
    """Stores episodes as durable pieces, and publishes pieces as a dataset. Safe to call from several threads."""

    args_model = NavWriterArgs

    def __init__(self, args: NavWriterArgs) -> None:
        super().__init__(args)
        video = VideoSettings(
            args.codec, args.crf, args.gop, args.preset or _PRESETS[args.codec], args.pix_fmt, args.threads
        )
        self._settings = ContentSettings(
            args.media, video, args.depth, args.segmentation, args.robot_type, args.threads
        )

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        args = self.args
        with draft_piece(episode.output, episode.request) as draft:
            if args.format == "interndata-n1":
                obstacles = (args.obstacle_low_m, args.obstacle_high_m)
                write_n1(draft, seq, obs, episode, self._settings, args.jpeg_quality, obstacles, self.beat)
            else:
                write_lerobot(draft, seq, obs, episode, args.format, self._settings, self.beat)
            piece = draft.commit(len(seq))
        self.beat()
        return piece

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        sizes = FileSizes(self.args.data_file_mb, self.args.video_file_mb)

        def build(root: Path, stored: list[StoredPiece]) -> None:
            if self.args.format == "lerobot-v3.0":
                build_v30(root, stored, job, sizes, final=final)
            elif self.args.format == "lerobot-v2.1":
                build_v21(root, stored, job)
            else:
                build_n1(root, stored, job)

        return publish_pieces(output, pieces, self.args.format, build, final=final)

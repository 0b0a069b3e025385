"""Pixels to bytes and back: AV1 and H.264 video, PNG of 8 and 16 bit, JPEG.

Frames go straight from memory to the encoder. PNG is written here instead of by Pillow, because a fixed row
filter in numpy and run-length deflate take a quarter of the time for files of about the same size.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.realtime import policy_of_caller, restore_policy
from nimbusd.stages.types import U8, U16

Codec = Literal["av1", "h264"]
_ENCODERS: dict[Codec, str] = {"av1": "libsvtav1", "h264": "libx264"}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP_FILTER = 2


@dataclass(frozen=True, slots=True)
class VideoSettings:
    """crf: quality, lower is better. gop: frames per key frame. preset: the encoder's speed; None: its default.

    threads: 0 leaves the number to the encoder.
    """

    codec: Codec = "av1"
    crf: int = 30
    gop: int = 2
    preset: str | None = None
    pix_fmt: str = "yuv420p"
    threads: int = 0

    def options(self) -> dict[str, str]:
        options = {"g": str(self.gop), "crf": str(self.crf)}
        if self.preset is not None:
            options["preset"] = self.preset
        if self.codec == "av1" and self.threads:
            options["svtav1-params"] = f"lp={self.threads}"
        if self.codec == "h264":
            options["bf"] = "0"  # so that dts = pts and files concatenate without edit lists
            if self.threads:
                options["threads"] = str(self.threads)
        return options


def frame_rate(fps: float) -> Fraction:
    """The exact rate that `fps` stands for, such as 30000/1001 for 29.97002997."""
    return Fraction(fps).limit_denominator(1001)


def _fraction(ratio: Any) -> Fraction:
    """Of what PyAV has for ratios: Python's own up to version 18, from 19 on another, which is no number."""
    return Fraction(ratio.numerator, ratio.denominator)


def encode_video(frames: Iterable[U8], fps: float, settings: VideoSettings, beat: Callable[[], None]) -> bytes:
    """An MP4 file of frames (H, W, 3) uint8 sRGB with pts = index / fps. H and W must be even.

    Raises StoreError if the encoder refuses.
    """
    import av

    rate = frame_rate(fps)
    buffer = io.BytesIO()
    policy = policy_of_caller()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = None
        try:
            for index, pixels in enumerate(frames):
                if stream is None:
                    stream = container.add_stream(_ENCODERS[settings.codec], rate, options=settings.options())
                    stream.height, stream.width = pixels.shape[:2]
                    stream.pix_fmt = settings.pix_fmt
                    stream.codec_context.time_base = 1 / rate
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame.pts = index
                frame.time_base = 1 / rate
                packets = stream.encode(frame)
                if index == 0:  # the encoder was opened by it
                    restore_policy(policy)
                container.mux(packets)
                beat()
            if stream is None:
                raise StoreError("a video needs at least one frame")
            container.mux(stream.encode(None))
        except (av.error.FFmpegError, ValueError) as error:  # a ValueError for a pixel format that there is not
            size = f"{stream.width}x{stream.height}" if stream is not None else "?"
            raise StoreError(
                f"encoder {_ENCODERS[settings.codec]} refused {size} {settings.pix_fmt} frames: {error}. "
                "Use even sizes of at least 8 pixels, another `codec` or `pix_fmt`, or `media: image`."
            ) from error
    return buffer.getvalue()


def encoder_refusals(sizes: Mapping[str, tuple[int, int]], settings: VideoSettings) -> list[str]:
    """Of videos (camera → width and height), those that the encoder does not take: a sentence each.

    A frame of each size is encoded, as only the encoder knows: H.264 wants even sizes, AV1 takes odd ones.
    """
    refused: dict[tuple[int, int], str] = {}
    for width, height in dict.fromkeys(sizes.values()):
        try:
            encode_video([np.zeros((height, width, 3), np.uint8)], 10.0, settings, lambda: None)
        except StoreError as error:
            refused[width, height] = str(error)
    return [f"camera '{camera}': {refused[size]}" for camera, size in sizes.items() if size in refused]


def join_videos(parts: Iterable[Path], fps: float) -> bytes:
    """One MP4 of several with the same encoding, by stream copy: frame k of the whole has pts k / fps.

    Raises StoreError for parts that differ in codec or size, or whose frames are not equally spaced.
    """
    import av

    rate = frame_rate(fps)
    buffer = io.BytesIO()
    first_frame = 0
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = None
        for part in parts:
            with av.open(str(part)) as source:
                template: Any = source.streams.video[0]
                kind = (template.codec_context.name, template.width, template.height, template.pix_fmt)
                if stream is None:
                    stream, first_kind = container.add_stream_from_template(template, opaque=True), kind
                    stream.time_base = 1 / rate
                elif kind != first_kind:
                    raise StoreError(f"cannot join {part}: its video is {kind}, the others are {first_kind}")
                frames = 0
                for packet in source.demux(template):
                    if packet.size == 0:  # the demuxer's end mark
                        continue
                    packet.pts = packet.dts = first_frame + _frame_index(part, packet, rate)
                    packet.duration = 1
                    packet.time_base = 1 / rate
                    packet.stream = stream
                    container.mux(packet)
                    frames += 1
                first_frame += frames
    return buffer.getvalue()


def _frame_index(part: Path, packet: Any, rate: Fraction) -> int:
    if packet.pts is None or packet.pts != packet.dts:
        raise StoreError(f"cannot join {part}: its frames are not stored in the order in which they are shown")
    time_s = packet.pts * _fraction(packet.time_base)
    index = time_s * rate
    if index.denominator != 1:
        raise StoreError(f"cannot join {part}: a frame at {time_s} s is off the {rate} fps grid")
    return int(index)


def video_times(path: Path) -> list[float]:
    """Presentation time in seconds of every packet of a video, without decoding. Raises StoreError."""
    import av

    try:
        with av.open(str(path)) as container:
            return sorted(
                float(packet.pts * _fraction(packet.time_base))
                for packet in container.demux(video=0)
                if packet.size and packet.pts is not None and packet.time_base is not None
            )
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise StoreError(f"video {path} cannot be read: {error}") from error


def video_facts(content: bytes) -> dict[str, Any]:
    """The `info` entry of a LeRobot video feature, read from an MP4 file's bytes."""
    import av

    with av.open(io.BytesIO(content)) as container:
        stream: Any = container.streams.video[0]
        rate = _fraction(stream.base_rate or stream.average_rate)
        fps = int(rate) if rate.denominator == 1 else float(rate)
        return {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": stream.codec_context.codec.canonical_name,
            "video.pix_fmt": stream.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        }


def decode_video(path: Path, first_frame: int, count: int, fps: float) -> U8:
    """Frames first_frame … first_frame + count - 1 as (count, H, W, 3) uint8. Raises StoreError."""
    import av

    rate = frame_rate(fps)
    frames: list[U8] = []
    try:
        with av.open(str(path)) as container:
            stream: Any = container.streams.video[0]
            if first_frame:
                container.seek(int(first_frame / rate / _fraction(stream.time_base)), stream=stream)
            for frame in container.decode(stream):
                index = round(frame.pts * _fraction(frame.time_base) * rate)
                if index < first_frame:
                    continue
                if index >= first_frame + count:
                    break
                frames.append(frame.to_ndarray(format="rgb24"))
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise StoreError(f"video {path} cannot be decoded: {error}") from error
    if len(frames) != count:
        raise StoreError(f"video {path} has {len(frames)} of the frames {first_frame}…{first_frame + count - 1}")
    return np.stack(frames)


def encode_png(pixels: U8 | U16) -> bytes:
    """Lossless PNG of (H, W) or (H, W, 3), uint8 or uint16. Deterministic."""
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise ValueError(f"cannot make a PNG of {pixels.dtype} {pixels.shape}")
    height, width = pixels.shape[:2]
    samples = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder(">"))
    rows = samples.view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP_FILTER
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    # Run-length matching plus Huffman codes: after a row filter, longer matches gain little and cost most.
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    body = deflate.compress(filtered.data) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    return _PNG_SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def decode_image(content: bytes) -> U8 | U16:
    """(H, W, 3) uint8 of a colour image, (H, W) uint16 of a 16-bit one, (H, W) uint8 of a grey one."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        if image.mode.startswith("I"):
            return np.asarray(image).astype(np.uint16)
        return np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))


def encode_jpeg(pixels: U8, quality: int = 95) -> bytes:
    """JPEG of (H, W, 3) uint8 sRGB, without chroma subsampling."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()

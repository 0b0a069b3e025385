"""Messages as bytes: a codec made from frozen dataclasses."""

from nimbusd.transport.codec.codec import MAX_DEPTH, MAX_MESSAGE_BYTES, Codec, MessageError, VersionError

__all__ = ["MAX_DEPTH", "MAX_MESSAGE_BYTES", "Codec", "MessageError", "VersionError"]

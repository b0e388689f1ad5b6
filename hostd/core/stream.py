"""Frames in a stream of bytes: puts them in, and finds them again after any noise.

Decides where a frame begins and ends on a serial line, and whether it came
through unharmed.  Refuses to know what is in it: ``wire`` seals and opens.
A reader that joins in the middle, or that met garbage, finds the next frame
at the next zero byte (COBS leaves none inside).  The CRC keeps line noise
and forgery apart in the counts; what is authentic is decided by the seal.
"""

import struct
import zlib
from typing import Final

_CRC = struct.Struct(">I")

FRAME_MAX: Final = 2_048
"""The largest frame that is ever looked at; links have an mtu below it."""


def frame_for_stream(frame: bytes) -> bytes:
    """``frame`` with its CRC32, free of zero bytes by COBS, between two zero bytes.

    The zero in front ends whatever noise came before it.
    """
    stuffed = bytearray(1)
    for block in (frame + _CRC.pack(zlib.crc32(frame))).split(b"\0"):
        for start in range(0, len(block) - 253, 254):
            stuffed.append(255)
            stuffed += block[start : start + 254]
        rest = block[len(block) - len(block) % 254 :]
        stuffed.append(len(rest) + 1)
        stuffed += rest
    stuffed.append(0)
    return bytes(stuffed)


def _unstuff(chunk: bytes) -> bytes | None:
    plain = bytearray()
    at = 0
    while at < len(chunk):
        end = at + chunk[at]
        if end > len(chunk):
            return None
        plain += chunk[at + 1 : end]
        if chunk[at] < 255 and end < len(chunk):
            plain.append(0)
        at = end
    if len(plain) < _CRC.size:
        return None
    frame, crc = bytes(plain[: -_CRC.size]), plain[-_CRC.size :]
    return frame if _CRC.pack(zlib.crc32(frame)) == crc else None


class StreamDecoder:
    """Finds the frames in a stream of bytes, whatever stands between them."""

    CHUNK_MAX: Final = FRAME_MAX + FRAME_MAX // 254 + 8
    """More bytes than this without a zero are no frame of ours."""

    def __init__(self) -> None:
        self.rejected = 0
        """Pieces between two delimiters that were no frame."""
        self._tail = b""
        self._overflowed = False

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that ``data`` completes, oldest first."""
        *chunks, self._tail = (self._tail + data).split(b"\0")
        frames = []
        for chunk in chunks:
            frame = None if self._overflowed or len(chunk) > self.CHUNK_MAX else _unstuff(chunk)
            if frame is not None:
                frames.append(frame)
            elif chunk or self._overflowed:
                self.rejected += 1
            self._overflowed = False
        if len(self._tail) > self.CHUNK_MAX:
            self._tail, self._overflowed = b"", True
        return frames

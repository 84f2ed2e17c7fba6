"""TensorBoard event files: TFRecord framing, each record an `Event` message of tensorflow/core/util/event.proto.

Only scalars and images are needed, so their few protobuf fields are written here and no package has to be installed.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_MASK_DELTA = 0xA282EAD8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class EventFile:
    """Appends to a new file in a folder that TensorBoard watches; a context manager.

    Args:
        folder: made where absent.
        first_step: step this process begins at; stands in the name, so that a resumed run adds a file.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard takes files that hold "tfevents" and reads them in the order of their names.
        self._stream: BinaryIO = (folder / f"events.out.tfevents.{first_step:012d}.replisome").open("wb")
        self._put(_field(3, _BYTES, b"brain.Event:2"))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """A point of a curve."""
        self._value(tag, _field(2, _FIXED32, struct.pack("<f", value)), step)

    def image(self, tag: str, pixels_HWC: NDArray[np.uint8], step: int) -> None:
        """An RGB image (H, W, 3)."""
        height, width = pixels_HWC.shape[:2]
        sizes = _field(1, _VARINT, _varint(height)) + _field(2, _VARINT, _varint(width)) + _field(3, _VARINT, b"\x03")
        self._value(tag, _field(4, _BYTES, sizes + _field(4, _BYTES, png(pixels_HWC))), step)

    def flush(self) -> None:
        """Let watchers see what was added."""
        self._stream.flush()

    def __enter__(self) -> EventFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.close()

    def _value(self, tag: str, payload: bytes, step: int) -> None:
        value = _field(1, _BYTES, tag.encode()) + payload
        summary = _field(1, _BYTES, value)
        self._put(_field(2, _VARINT, _varint(step)) + _field(5, _BYTES, summary))

    def _put(self, event: bytes) -> None:
        event = _field(1, _FIXED64, struct.pack("<d", time.time())) + event
        length = struct.pack("<Q", len(event))
        self._stream.write(length + _masked_crc(length) + event + _masked_crc(event))


def _field(number: int, kind: int, payload: bytes) -> bytes:
    size = _varint(len(payload)) if kind == _BYTES else b""
    return _varint(number << 3 | kind) + size + payload


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF)


def png(pixels_HWC: NDArray[np.uint8]) -> bytes:
    """A PNG file of an RGB image (H, W, 3) (ISO/IEC 15948)."""
    height, width = pixels_HWC.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels_HWC.reshape(height, -1)], axis=1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def curves_image(curves: Sequence[tuple[Floats, Floats]], *, size: int = 128) -> NDArray[np.uint8]:
    """(size, size, 3): curves of x and y within 0 to 1, y upwards, in shades from dark blue to orange, on white."""
    pixels = np.full((size, size, 3), 255, np.uint8)
    first, last = np.array([8.0, 48.0, 107.0]), np.array([253.0, 141.0, 60.0])
    for number, (x_N, y_N) in enumerate(curves):
        if len(x_N) == 0:
            continue
        columns = np.arange(size)
        rows = np.interp(columns / (size - 1), x_N, y_N) * (size - 1)
        shade = first + (last - first) * number / max(1, len(curves) - 1)
        pixels[size - 1 - rows.round().astype(np.int64), columns] = shade.round().astype(np.uint8)
    return pixels


def confusion_image(counts_KK: NDArray[np.int64], *, cell: int = 24) -> NDArray[np.uint8]:
    """(K * cell, K * cell, 3): share of each true class (row) that was given each class (column), white 0 to blue 1."""
    share_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    white, blue = np.array([255.0, 255.0, 255.0]), np.array([8.0, 48.0, 107.0])
    colour = white + share_KK[:, :, None] * (blue - white)
    return np.kron(colour.round().astype(np.uint8), np.ones((cell, cell, 1), np.uint8))

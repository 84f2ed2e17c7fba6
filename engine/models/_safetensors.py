"""The header of a safetensors file, read without torch and without trusting it.

Layout (https://github.com/huggingface/safetensors, "Format"): 8 bytes little-endian header length, a JSON header naming
each tensor's dtype, shape and byte range, then the bytes, without gaps.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InputError

MAX_HEADER_BYTES = 16 << 20
MAX_FILE_BYTES = 64 << 30
MAX_TENSORS = 100_000
MAX_DIMENSIONS = 32
_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip
_FIX = "fetch the model again"


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """A tensor as its file announces it; dtype in safetensors' own words, such as F32."""

    dtype: str
    shape: tuple[int, ...]


def file_sha256(path: Path) -> str:
    """sha256 of a file, in hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Tensor name to header, sorted by name.

    Raises:
        InputError: the header is longer than the file or the cap, does not parse, or its byte ranges do not cover the
            file's data exactly.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise InputError(f"{size} bytes, more than the limit of {MAX_FILE_BYTES}", where=str(path), fix=_FIX)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise InputError("no safetensors file: its header length does not fit", where=str(path), fix=_FIX)
        text = file.read(length)
    entries = _parse(text, path)
    spans = []
    headers = {}
    for name in sorted(entries):
        headers[name], span = _entry(name, entries[name], path)
        spans.append(span)
    _check_spans(spans, size - 8 - length, path)
    return headers


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=no_duplicates)
    except (ValueError, RecursionError) as error:
        raise InputError("no safetensors file: its header is no plain JSON", where=str(path), fix=_FIX) from error
    if not isinstance(header, dict):
        raise InputError("no safetensors file: its header is no JSON object", where=str(path), fix=_FIX)
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise InputError("the header's __metadata__ must hold texts", where=str(path), fix=_FIX)
    if len(header) > MAX_TENSORS:
        raise InputError(f"{len(header)} tensors, more than the limit of {MAX_TENSORS}", where=str(path), fix=_FIX)
    return header


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An `object_pairs_hook` for json.loads that refuses a key standing twice."""
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)[:200]!r} stands twice")
    return made


def _entry(name: str, value: Any, path: Path) -> tuple[TensorHeader, tuple[int, int]]:
    """One tensor's header and byte range, checked against each other."""
    try:
        dtype, shape, (begin, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        whole = all(type(number) is int and 0 <= number <= MAX_FILE_BYTES for number in (*shape, begin, end))
        fits = (
            whole
            and set(value) == {"dtype", "shape", "data_offsets"}
            and len(shape) <= MAX_DIMENSIONS
            and end - begin == math.prod(shape) * _BYTES[dtype]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"tensor {name[:200]!r}: header does not read", where=str(path), fix=_FIX) from error
    if not fits:
        what = f"tensor {name[:200]!r}: shape and dtype do not fit its byte range"
        raise InputError(what, where=str(path), fix=_FIX)
    return TensorHeader(dtype, shape), (begin, end)


def _check_spans(spans: list[tuple[int, int]], data_bytes: int, path: Path) -> None:
    """Byte ranges follow on one another from 0 to the end: nothing overlaps and nothing hides between."""
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise InputError(f"tensor data has a gap or overlap at byte {at}", where=str(path), fix=_FIX)
        at = end
    if at != data_bytes:
        raise InputError(f"tensor data is {data_bytes} bytes, its header describes {at}", where=str(path), fix=_FIX)

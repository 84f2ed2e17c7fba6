"""Checksums: CRC-32C (RFC 3720) guards every file of a run, SHA-256 (FIPS 180-4) names its inputs."""

from __future__ import annotations

import hashlib
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def crc32c(data: bytes, value: int = 0) -> int:
    """CRC-32C of `data`, continuing from `value`."""
    import google_crc32c  # only what reads or writes checked files needs it

    return int(google_crc32c.extend(value, data))


def crc32c_of_file(path: Path) -> int:
    """CRC-32C of a whole file, read in chunks."""
    value = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            value = crc32c(chunk, value)
    return value


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a whole file as lower-case hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checksums_of_file(path: Path) -> tuple[int, str, int]:
    """Size in bytes, SHA-256 as lower-case hex and CRC-32C of a whole file, which is read once."""
    size, checksum, digest = 0, 0, hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            size += len(chunk)
            checksum = crc32c(chunk, checksum)
            digest.update(chunk)
    return size, digest.hexdigest(), checksum

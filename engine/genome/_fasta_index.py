"""Finding, checking and making the index of a FASTA file (.fai, and .gzi where bgzipped; samtools faidx formats)."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from pathlib import Path

from engine.errors import InputError, SystemFailure
from engine.genome._cache import cache_folder, publish
from engine.genome._htslib import quiet_htslib

# Line ends that may follow the last base of a plain FASTA.
_MAX_TAIL_BYTES = 4


def is_bgzipped(path: Path) -> bool:
    """Whether a FASTA is bgzipped (True) or plain (False), by its first bytes.

    Raises:
        InputError: absent, empty, not a FASTA, or compressed in a way that cannot be read at random.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(18)
    except OSError as error:
        raise InputError(
            f"cannot read the reference: {error.strerror}", where=str(path), fix="give a FASTA file"
        ) from error
    gzipped = head[:2] == b"\x1f\x8b"
    # BGZF is gzip with an extra field whose subfield id is BC (SAM specification, section 4.1).
    if gzipped and not (len(head) == 18 and head[3] & 4 and head[12:14] == b"BC"):
        raise InputError(
            "the reference is gzipped but not bgzipped, so it cannot be read at random",
            where=str(path),
            fix=f"run `gunzip {path.name}`, or `gunzip -c {path.name} | bgzip > other.fa.gz`",
        )
    first = _first_byte(path) if gzipped else head[:1]
    if first != b">":
        found = "is empty" if not first else f"begins with {first!r} where FASTA begins with '>'"
        raise InputError(f"the reference {found}", where=str(path), fix="give a FASTA file, plain or bgzipped")
    return gzipped


def _first_byte(path: Path) -> bytes:
    with gzip.open(path) as handle:
        try:
            return handle.read(1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"the bgzipped reference is corrupt at its beginning ({error})",
                where=str(path),
                fix="fetch the file again",
            ) from error


def open_index(path: Path) -> tuple[Path, Path | None]:
    """Paths of (.fai, .gzi or None) that fit a FASTA, made if absent.

    An index beside the file is used when it is not older than the file and fits its size. Else one is made: beside
    the file where there is none and the folder can be written, otherwise in the per-user cache.

    Raises:
        InputError: the FASTA cannot be indexed (lines of uneven length, corrupt blocks).
        SystemFailure: neither the folder nor the cache can be written.
    """
    compressed = is_bgzipped(path)
    beside = _names(path.parent, path.name, compressed=compressed)
    if _is_fresh(path, *beside):
        return beside
    cached = _names(cache_folder(path), path.name, compressed=compressed)
    # The folder's name holds size and time of the FASTA, so what lies there belongs to it.
    if all(index is None or index.exists() for index in cached):
        return cached
    if not beside[0].exists():
        with contextlib.suppress(OSError):
            _build(path, *beside)
            return beside
    try:
        _build(path, *cached)
    except OSError as error:
        raise SystemFailure(
            f"the index of {path.name} can be written neither beside it nor to {cached[0].parent} ({error.strerror})",
            where=str(path),
            fix="set XDG_CACHE_HOME to a folder that can be written, or run `samtools faidx` on the file",
        ) from error
    return cached


def _names(folder: Path, name: str, *, compressed: bool) -> tuple[Path, Path | None]:
    return folder / f"{name}.fai", folder / f"{name}.gzi" if compressed else None


def _is_fresh(path: Path, fai: Path, gzi: Path | None) -> bool:
    changed = path.stat().st_mtime_ns
    for index in (fai, gzi):
        if index is not None and not (index.exists() and index.stat().st_mtime_ns >= changed):
            return False
    return gzi is not None or _fits_size(path, fai)


def _fits_size(path: Path, fai: Path) -> bool:
    """Whether the last base of an index falls on the end of a plain FASTA; catches an index of another file."""
    ends = [0]
    try:
        for line in fai.read_text().splitlines():
            _, length, offset, line_bases, line_bytes = (int(x) if i else 0 for i, x in enumerate(line.split("\t")))
            ends.append(offset + (length - 1) // line_bases * line_bytes + (length - 1) % line_bases + 1)
    except (ValueError, ZeroDivisionError):
        return False
    return 0 <= path.stat().st_size - max(ends) <= _MAX_TAIL_BYTES


def _build(path: Path, fai: Path, gzi: Path | None) -> None:
    import pysam
    from pysam.utils import SamtoolsError

    def run(fai_path: Path, *more: str) -> None:
        try:
            with quiet_htslib():
                pysam.faidx("--fai-idx", str(fai_path), *more, str(path.absolute()))
        except SamtoolsError as error:
            raise InputError(
                "the reference cannot be indexed: its lines differ in length within a contig, its last contig is "
                "empty, or it is corrupt",
                where=str(path),
                fix=f"run `samtools faidx {path.name}` to see the line, or fetch the file again",
            ) from error

    if gzi is None:
        publish(fai, run)
    else:
        publish(gzi, lambda gzi_path: publish(fai, lambda fai_path: run(fai_path, "--gzi-idx", str(gzi_path))))

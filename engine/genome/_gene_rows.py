"""What the readers of gene annotation files share: a transcript in the making, lines, and errors with line numbers."""

from __future__ import annotations

import gzip
import io
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from engine.errors import InputError

Lines = Iterator[tuple[int, bytes]]

# RefSeq Select is to RefSeq what the Ensembl canonical transcript is to Ensembl: the one that stands for the gene.
_CANONICAL_TAGS = frozenset({"Ensembl_canonical", "RefSeq_Select"})


@dataclass(slots=True)
class Draft:
    """A transcript in the making.

    `exons` holds start, end, start, end, ... as read, 0-based half-open; `bounds` is the transcript's own start and
    end where the file states them apart from its exons. A transcript that is wider than its exons has further ones
    that the file does not tell.
    """

    line: int
    transcript_id: str
    gene_id: str
    symbol: str
    contig: str
    strand: str
    is_mane_select: bool = False
    is_canonical: bool = False
    cds_length: int = 0
    on_one_strand: bool = True
    exons: array[int] = field(default_factory=lambda: array("q"))
    bounds: tuple[int, int] | None = None

    def set_tags(self, tags: list[str]) -> None:
        """Take the marks of the transcript that stands for its gene; RefSeq writes them with a blank."""
        known = {tag.strip().replace(" ", "_") for tag in tags}
        self.is_mane_select = "MANE_Select" in known
        self.is_canonical = bool(known & _CANONICAL_TAGS)


def versioned(name: str, version: str | None) -> str:
    """`name.version`, unless the name carries its version already or there is none."""
    return name if not version or "." in name else f"{name}.{version}"


def bad_line(path: Path, number: int, what: str, *, fix: str = "mend the line or fetch the file again") -> InputError:
    """An InputError that names the line of the annotation file."""
    return InputError(what, where=f"{path}, line {number:,}", fix=fix)


def span(path: Path, number: int, start: bytes, end: bytes) -> tuple[int, int]:
    """1-based inclusive columns to 0-based half-open.

    Raises:
        InputError: not two whole numbers with 1 <= start <= end.
    """
    try:
        low, high = int(start), int(end)
    except ValueError:
        low, high = 0, 0
    if not 1 <= low <= high:
        raise bad_line(path, number, f"start {text(start)!r} and end {text(end)!r} are no range of bases")
    return low - 1, high


def text(raw: bytes) -> str:
    """Text of a field; bytes that are no UTF-8 are shown, not refused."""
    return raw.decode("utf-8", "backslashreplace")


@contextmanager
def open_lines(path: Path) -> Iterator[Lines]:
    """Numbered lines (from 1, line ends kept) of a plain or gzipped text file.

    Raises:
        InputError: absent, or the compressed data end early or are corrupt.
    """
    try:
        with _open_binary(path) as handle:
            yield enumerate(handle, 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"the compressed gene annotation is truncated or corrupt ({error})",
            where=str(path),
            fix="fetch the file again",
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot read the gene annotation: {error.strerror}", where=str(path), fix="give a GTF or GFF3 file"
        ) from error


def _open_binary(path: Path) -> IO[bytes]:
    with path.open("rb") as handle:
        gzipped = handle.read(2) == b"\x1f\x8b"
    if gzipped:
        return io.BufferedReader(gzip.open(path), 1 << 20)
    return path.open("rb", buffering=1 << 20)

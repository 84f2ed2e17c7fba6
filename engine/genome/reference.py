"""The reference genome: an indexed FASTA read at random, many small reads at a time.

Sequences come upper-case; every letter but A, C, G, T is N, and so is everything outside a contig.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.genome._cache import cache_folder, publish
from engine.genome._contig_names import absent_contig, short_list
from engine.genome._fasta_index import open_index
from engine.genome._htslib import quiet_htslib
from engine.genome.refget import refget_digest

_MIN_BLOCK = 1 << 16
_MAX_BLOCK = 1 << 20
_DIGEST_CHUNK = 1 << 23

_TEXT_TABLE = bytes(ord(chr(b).upper()) if chr(b) in "ACGTacgt" else ord("N") for b in range(256))


class ReferenceGenome:
    """Random access to a FASTA file, plain or bgzipped, with a block of sequence kept around the last read.

    Copies sent to other processes open the file again. Not for use by several threads at once.

    Args:
        path: the FASTA file.
        contig_aliases: contig name of the caller's inputs to contig name in the FASTA.

    Attributes:
        path: as given.
        contigs: contig name in the FASTA to its length, in file order.

    Raises:
        InputError: not a FASTA that can be read at random.
    """

    def __init__(self, path: str | Path, *, contig_aliases: Mapping[str, str] | None = None) -> None:
        self.path = str(path)
        self.contig_aliases = dict(contig_aliases or {})
        self._handle, self.contigs = _open(Path(path))
        # The kept block: bases [low, high) of the contig that callers name `_block_name`.
        self._block_name: str | None = None
        self._low = self._high = 0
        self._raw = b""
        self._text = ""
        self._digests: dict[str, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "contig_aliases": self.contig_aliases}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], contig_aliases=state["contig_aliases"])  # type: ignore[misc]

    def close(self) -> None:
        """Close the file; reading afterwards is an error of the caller."""
        self._handle.close()
        self._block_name = None

    def resolve(self, contig: str) -> str:
        """The FASTA's own name of a contig, by alias or as it is.

        Raises:
            InputError: not in the FASTA; the message names both naming styles and offers `contig_aliases`.
        """
        name = self.contig_aliases.get(contig, contig)
        if name not in self.contigs:
            raise absent_contig(contig, name, self.contigs, where=self.path)
        return name

    def length(self, contig: str) -> int:
        """Length of a contig in bases.

        Raises:
            InputError: not in the FASTA.
        """
        return self.contigs[self.resolve(contig)]

    def fetch(self, contig: str, start: int, end: int) -> str:
        """Bases [start, end) as upper-case A, C, G, T and N; N outside the contig, so start may be negative.

        Raises:
            InputError: the contig is not in the FASTA, or the file is corrupt there.
        """
        if contig != self._block_name or start < self._low or end > self._high:
            low, high = self._ensure(contig, start, end)
            inside = self._text[low - self._low : high - self._low]
            return "N" * (min(low, end) - start) + inside + "N" * (end - max(high, start))
        return self._text[start - self._low : end - self._low]

    def fetch_written(self, contig: str, start: int, end: int) -> str:
        """Bases [start, end) in the letters and case of the file, IUPAC codes included; N outside the contig.

        Raises:
            InputError: as `fetch`.
        """
        low, high = self._ensure(contig, start, end)
        inside = self._raw[low - self._low : high - self._low].decode("latin-1")
        return "N" * (min(low, end) - start) + inside + "N" * (end - max(high, start))

    def _ensure(self, contig: str, start: int, end: int) -> tuple[int, int]:
        """Have the part of [start, end) that lies in the contig in the kept block, and return that part."""
        if contig == self._block_name and start >= self._low and end <= self._high:
            return start, end
        name = self.resolve(contig)
        length = self.contigs[name]
        low = min(max(start, 0), length)
        high = max(min(end, length), low)
        if contig != self._block_name or low < self._low or high > self._high:
            self._load(contig, name, low, high)
        return low, high

    def _load(self, contig: str, name: str, low: int, high: int) -> None:
        """Read the block around [low, high): large when reads move along a contig, small when they jump about."""
        size = self._high - self._low
        moves_along = contig == self._block_name and self._low - size <= low <= self._high + size
        block = min(_MAX_BLOCK, 4 * size) if moves_along else _MIN_BLOCK
        # Reads go upwards as a rule, but a window begins left of its variant and a normal form looks left.
        self._low = max(0, low - max(_MIN_BLOCK, block) // 8)
        self._high = min(self.contigs[name], max(high, self._low + block))
        self._block_name = None
        self._raw = self._read(name, self._low, self._high)
        self._text = self._raw.translate(_TEXT_TABLE).decode("ascii")
        self._block_name = contig

    def _read(self, name: str, start: int, end: int) -> bytes:
        """Bases [start, end) as written in the file."""
        with quiet_htslib():
            try:
                text = self._handle.fetch(name, start, end)
            except (ValueError, OSError):
                text = ""
        if len(text) != end - start:
            raise InputError(
                f"the reference gives {len(text):,} of {end - start:,} bases at {name}:{start + 1:,}-{end:,}: the file "
                "is truncated or corrupt, or its index belongs to another file",
                where=self.path,
                fix="fetch the file again and delete its .fai and .gzi",
            )
        return bytes(text, "latin-1")

    def refget(self, contig: str) -> str:
        """The refget digest "SQ...." of a contig's sequence, computed once per file and user.

        Raises:
            InputError: the contig is not in the FASTA, or the file is corrupt.
        """
        return self.refget_many([contig])[contig]

    def refget_many(self, contigs: Iterable[str]) -> dict[str, str]:
        """Contig to its digest, as `refget`; what is kept for the user is read once, and written once for the call.

        Raises:
            InputError: as `refget`.
        """
        names = {contig: self.resolve(contig) for contig in contigs}
        store = cache_folder(Path(self.path)) / "refget.json"
        if self._digests is None:
            self._digests = _read_digests(store)
        absent = [name for name in dict.fromkeys(names.values()) if name not in self._digests]
        for name in absent:
            self._digests[name] = refget_digest(self._chunks(name))
        if absent:
            _write_digests(store, self._digests)
        return {contig: self._digests[name] for contig, name in names.items()}

    def _chunks(self, name: str) -> Iterator[bytes]:
        length = self.contigs[name]
        for start in range(0, length, _DIGEST_CHUNK):
            yield self._read(name, start, min(length, start + _DIGEST_CHUNK))


def _open(path: Path) -> tuple[Any, dict[str, int]]:
    import pysam

    fai, gzi = open_index(path)
    with quiet_htslib():
        try:
            handle = pysam.FastaFile(
                str(path), filepath_index=str(fai), filepath_index_compressed=str(gzi) if gzi else None
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"the reference or its index {fai.name} cannot be opened ({error})",
                where=str(path),
                fix="delete the index and run again",
            ) from error
    return handle, dict(zip(handle.references, handle.lengths, strict=True))


def _read_digests(store: Path) -> dict[str, str]:
    try:
        known = json.loads(store.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_digests(store: Path, known: Mapping[str, str]) -> None:
    # The cache only saves time: a home that cannot be written costs the digest again, not the run.
    def write(path: Path) -> None:
        path.write_text(json.dumps(known, sort_keys=True))

    with contextlib.suppress(OSError):
        publish(store, write)


def match_contigs(wanted: Mapping[str, int | None], reference: ReferenceGenome, *, or_else: str = "") -> None:
    """Refuse inputs whose contigs are not those of the reference.

    Args:
        wanted: contig name to its length, or None where the input does not say.
        reference: the genome they should be in; its `contig_aliases` are followed.
        or_else: what the user can do about an absent contig, beside using the matching FASTA.

    Raises:
        InputError: contigs absent, named in another style, or of another length; all such in one sentence.
    """
    absent = [name for name in wanted if reference.contig_aliases.get(name, name) not in reference.contigs]
    if absent:
        target = reference.contig_aliases.get(absent[0], absent[0])
        where, others = reference.path, absent[1:]
        raise absent_contig(absent[0], target, reference.contigs, where=where, others=others, or_else=or_else)
    differing = [
        f"{name!r} ({length:,} bases, {reference.length(name):,} in the reference)"
        for name, length in wanted.items()
        if length is not None and length != reference.length(name)
    ]
    if differing:
        raise InputError(
            f"contigs of another length than in the reference: {short_list(differing)}",
            where=reference.path,
            fix="use the FASTA of the genome build that the input was made with",
        )

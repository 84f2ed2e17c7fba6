"""Regions as `bcftools view -r/-R` takes them, and which records overlap them.

A record covers [POS - 1, POS - 1 + length of REF), or up to INFO END where that is given, as htslib indexes it; so a
deletion that begins before a region and reaches into it is selected.
"""

from __future__ import annotations

import gzip
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError
from engine.genome.reference import ReferenceGenome

MAX_POS = (1 << 31) - 1
"""Largest POS: the VCF specification holds integers to 32 bits."""

_has_span = re.compile(r"(?P<contig>.+):(?P<begin>[0-9]+)(?P<dash>-(?P<end>[0-9]*))?").fullmatch
_has_thousands = re.compile(r"[:-][0-9]{1,3},[0-9]{3}(?![0-9A-Za-z_.:])").search
_has_braces = re.compile(r"\{(?P<contig>[^{}]+)\}(?P<rest>:[0-9]+(-[0-9]*)?)?").fullmatch
_SHOWN = 5
_SYNTAX = "write contig, contig:pos, contig:begin-end or contig:begin- with 1-based positions"


@dataclass(frozen=True, slots=True, order=True)
class Region:
    """A stretch of a contig, 0-based half-open."""

    contig: str
    start: int = 0
    end: int = MAX_POS

    def __str__(self) -> str:
        """As a user types it: 1-based, both ends within."""
        if self.end == self.start + 1:
            return f"{self.contig}:{self.end}"
        return f"{self.contig}:{self.start + 1}-{'' if self.end == MAX_POS else self.end}"


def parse_regions(texts: Sequence[str], bed_path: str | Path | None = None) -> list[Region]:
    """Regions from `-r` texts and a `-R` file, in the order given.

    Args:
        texts: each one or more regions joined by commas. A contig whose name ends like a region is put in braces,
            as in `{HLA-A*01:01}:1-50`.
        bed_path: BED (0-based) where the name ends in .bed or .bed.gz, else a table of CHROM, POS and optional END
            (1-based, inclusive), plain or gzipped, as bcftools reads it.

    Raises:
        InputError: a region or row that does not parse.
    """
    for joined in texts:
        if _has_thousands(joined):
            fix = "write plain numbers, as in chr1:1000-2000; commas separate regions"
            raise InputError("positions hold thousands separators", where=f"region {joined!r}", fix=fix)
    found = [_parse_region(text) for joined in texts for text in joined.split(",") if text.strip()]
    if bed_path is not None:
        found.extend(_read_region_file(Path(bed_path)))
    return found


def _parse_region(text: str) -> Region:
    text = text.strip()
    braces = _has_braces(text)
    if braces and not braces["rest"]:
        return Region(braces["contig"])
    match = _has_span(braces["contig"] + braces["rest"] if braces else text)
    if not match:
        return Region(text)
    begin = int(match["begin"])
    if match["dash"]:
        end = int(match["end"]) if match["end"] else MAX_POS
    else:
        end = begin
    return _region(match["contig"], begin - 1, end, where=f"region {text!r}")


def _region(contig: str, start: int, end: int, *, where: str) -> Region:
    if start < 0 or end <= start:
        raise InputError(f"begin {start + 1} and end {end} hold no base", where=where, fix=_SYNTAX)
    return Region(contig, start, min(end, MAX_POS))


def _read_region_file(path: Path) -> Iterator[Region]:
    """Rows of a BED or tab-delimited file."""
    zero_based = path.name.lower().endswith((".bed", ".bed.gz"))
    sites_only = path.name.lower().endswith((".vcf", ".vcf.gz"))
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip() or line.startswith(("#", "track ", "browser ")):
            continue
        columns = line.rstrip("\r\n").split("\t")
        where = f"{path} line {number}"
        numbers = columns[1:2] if sites_only else columns[1:3]
        if not numbers or not all(text.isascii() and text.isdigit() for text in numbers):
            raise InputError(
                f"not a region: {line.rstrip()[:80]!r}", where=where, fix="write CHROM, POS and END, parted by tabs"
            )
        first = int(numbers[0])
        start = first if zero_based else first - 1
        yield _region(columns[0], start, int(numbers[1]) if len(numbers) > 1 else start + 1, where=where)


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt") if zipped else path.open("rt") as stream:
            yield from stream
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"the regions file cannot be read ({error})", where=str(path), fix="check the path") from error


class RegionSet:
    """Regions merged per contig, asked by binary search."""

    def __init__(self, regions: Iterable[Region]) -> None:
        self._starts: dict[str, list[int]] = {}
        self._ends: dict[str, list[int]] = {}
        for region in sorted(regions):
            starts = self._starts.setdefault(region.contig, [])
            ends = self._ends.setdefault(region.contig, [])
            if ends and region.start <= ends[-1]:
                ends[-1] = max(ends[-1], region.end)
            else:
                starts.append(region.start)
                ends.append(region.end)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __contains__(self, contig: str) -> bool:
        return contig in self._starts

    def __iter__(self) -> Iterator[Region]:
        for contig, starts in self._starts.items():
            for start, end in zip(starts, self._ends[contig], strict=True):
                yield Region(contig, start, end)

    def span(self, contig: str) -> tuple[int, int]:
        """Lowest start and highest end of the contig's regions."""
        return self._starts[contig][0], self._ends[contig][-1]

    def overlap(self, contig: str, start: int, end: int) -> bool:
        """Whether [start, end) shares a base with any region."""
        starts = self._starts.get(contig)
        if starts is None:
            return False
        index = bisect_right(self._ends[contig], start)
        return index < len(starts) and starts[index] < end


def placed_regions(regions: Iterable[Region], reference: ReferenceGenome) -> tuple[dict[str, list[Region]], list[str]]:
    """Contig to its regions, merged, cut at its end and in the reference's order; notes on what lies past an end.

    Raises:
        InputError: a contig that is not in the reference, or all regions lie past the ends of theirs.
    """
    named, notes, past = [], [], 0
    for one in regions:
        contig = reference.resolve(one.contig)
        length = reference.contigs[contig]
        if one.start < length:
            named.append(Region(contig, one.start, one.end))
            continue
        past += 1
        if past <= _SHOWN:
            notes.append(f"the region {one} begins past the end of its contig ({length:,} bases)")
    if past > _SHOWN:
        notes.append(f"{past - _SHOWN:,} more regions begin past the ends of their contigs")
    found: dict[str, list[Region]] = {}
    for region in RegionSet(named):
        length = reference.contigs[region.contig]
        found.setdefault(region.contig, []).append(Region(region.contig, region.start, min(region.end, length)))
    if notes and not found:
        raise InputError(
            f"no region holds a base of the reference: {notes[0]}",
            where="regions",
            fix="write 1-based positions on the contigs of this reference",
        )
    return {contig: found[contig] for contig in reference.contigs if contig in found}, notes

"""Every SNV of regions of the reference, without a file of variants: the source of a genome-wide table.

A record is one SNV: at each base A, C, G or T the three others follow as three records, ALT in the order A, C, G, T,
REF in upper case. One ALT per line is what users of such tables expect: the precomputed tables of SpliceAI and CADD
are written so, a value then belongs to its line without counting along ALT, and lines join to other files by CHROM,
POS, REF and ALT as they stand. Bases that the reference does not know (N and the other IUPAC letters) make no record.

Records are made anew from the reference whenever they are needed, so a shard is told by a contig and the bases it
reaches over.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from engine.errors import InputError
from engine.genome.reference import ReferenceGenome
from engine.genome.variants import VariantRecord
from engine.io.planning import as_data_error, check_shard
from engine.io.regions import Region, placed_regions
from engine.io.source import RawRecord, Scan, Shard

RESULT_VERSION = 1
"""Raised when other records are made of the same bases; part of the input's digest."""

MAX_SHARDS = 1_000_000
"""What a run is built to hold."""
_LEAST_PER_SHARD, _MOST_PER_SHARD, _SUITED_SHARDS = 1_000, 30_000, 100_000
_CHUNK_BP = 1 << 20
_NO_BASE = ord("N")
_SNVS_PER_BASE = 3
_SNVS = {
    ord(ref): [(ref, (alt,), f"\t.\t{ref}\t{alt}\t.\t.\t.".encode()) for alt in "ACGT" if alt != ref] for ref in "ACGT"
}
"""ASCII code of REF to REF, ALT and the columns from ID to INFO, for each SNV."""
_SNV_BYTES = len("\t\t.\tA\tC\t.\t.\t.\n")
_COLUMNS = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
# VCF 4.3, section 1.4.7, but for a leading '#', which would make the record a header line.
_is_vcf_contig = re.compile(r"[0-9A-Za-z!$%&+./:;?@^_|~-][0-9A-Za-z!#$%&*+./:;=?@^_|~-]*").fullmatch

Bases = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]
"""0-based places (B,) and their letters A, C, G, T as ASCII codes (B,)."""


class AllSnvs:
    """The SNVs of regions as a `VariantSource`; plan offsets are 0-based places on the shard's contig.

    A shard holds whole bases of one contig, as many as its limits allow but at least one, and may reach over several
    regions.

    Attributes:
        path: the reference, from which the records are made.
        regions: what was asked for, under the reference's own contig names and in its order, merged where they touch,
            cut at the ends of the contigs; 0-based half-open.
    """

    def __init__(self, reference: ReferenceGenome, *, regions: Sequence[Region]) -> None:
        """Place the regions on the reference; reads no sequence.

        Raises:
            InputError: no region, a contig that is not in the reference, one whose name no VCF can hold, or no region
                that holds a base.
        """
        if not regions:
            raise InputError(
                "no region says where to make SNVs",
                where="all_snvs",
                fix="give regions or genes; a contig's name alone, as in -r chr20, takes the whole of it",
            )
        self.path = reference.path
        self._reference = reference
        self._by_contig, self._notes = placed_regions(regions, reference)
        _check_names(self._by_contig, reference)
        self._ends = {contig: [region.end for region in found] for contig, found in self._by_contig.items()}
        self.regions = tuple(region for found in self._by_contig.values() for region in found)

    @cached_property
    def header(self) -> bytes:
        """A VCF header with the reference's contigs; those in use are told by their refget digest too.

        The reference's path is left out: a result must not depend on where its inputs lie.
        """
        digests = self._reference.refget_many(self._by_contig)
        lines = ["##fileformat=VCFv4.3"]
        for name, length in self._reference.contigs.items():
            refget = f",refget={digests[name]}" if name in digests else ""
            if _is_vcf_contig(name):
                lines.append(f"##contig=<ID={name},length={length}{refget}>")
        return "".join(f"{line}\n" for line in lines).encode() + _COLUMNS

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,
        on_record: Callable[[RawRecord], None] | None = None,
        on_record_limit: int = 0,
    ) -> Scan:
        """See `VariantSource.scan`: counts the bases of the regions and cuts them, without making their records.

        Raises:
            InputError: more than MAX_SHARDS shards.
        """
        if records_per_shard < 1 or bytes_per_shard < 1:
            raise InputError("shards must hold at least one record and one byte", where="records_per_shard")
        bases_per_shard = {
            contig: self._bases_per_shard(contig, records_per_shard, bytes_per_shard) for contig in self._ends
        }
        self._check_number(bases_per_shard, records_per_shard, bytes_per_shard)
        shards: list[Shard] = []
        contigs: dict[str, int] = {}
        for contig, per_shard in bases_per_shard.items():
            firsts, lasts, num_bases = self._cut(contig, per_shard)
            first_record = sum(contigs.values())
            for number, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
                before = number * per_shard
                shards.append(
                    Shard(
                        shard=len(shards),
                        begin=first,
                        end=last + 1,
                        num_records=min(per_shard, num_bases - before) * _SNVS_PER_BASE,
                        first_record=first_record + before * _SNVS_PER_BASE,
                        contig=contig,
                        start=first,
                        last_contig=contig,
                        last_start=last,
                    )
                )
            if num_bases:
                contigs[contig] = num_bases * _SNVS_PER_BASE
        if on_record is not None:
            for record in itertools.islice(self._all_records(), on_record_limit):
                on_record(record)
        num_records = sum(contigs.values())
        return Scan(shards, num_records, self._digest(), contigs, [*self._notes, *self._left_out(num_records)])

    @property
    def records_per_shard(self) -> int:
        """A shard size that suits the regions: small enough to be lost, large enough for a whole genome."""
        return min(_MOST_PER_SHARD, max(_LEAST_PER_SHARD, self._num_snvs() // _SUITED_SHARDS))

    def _num_snvs(self) -> int:
        """SNVs of the regions, as if every base of them were known."""
        return _SNVS_PER_BASE * sum(one.end - one.start for one in self.regions)

    def _bases_per_shard(self, contig: str, records_per_shard: int, bytes_per_shard: int) -> int:
        return max(1, min(records_per_shard, bytes_per_shard // self._line_bytes(contig)) // _SNVS_PER_BASE)

    def _line_bytes(self, contig: str) -> int:
        return len(contig.encode()) + len(str(self._ends[contig][-1])) + _SNV_BYTES

    def _check_number(self, bases_per_shard: Mapping[str, int], records_per_shard: int, bytes_per_shard: int) -> None:
        """Refuse a cut into more shards than a run may have, before a base is read: an N is counted as a base."""
        num = sum(
            -(-sum(one.end - one.start for one in self._by_contig[contig]) // per_shard)
            for contig, per_shard in bases_per_shard.items()
        )
        if num <= MAX_SHARDS:
            return
        # Each contig may end in a shard that is not full.
        least = _SNVS_PER_BASE * -(-self._num_snvs() // (_SNVS_PER_BASE * max(1, MAX_SHARDS - len(self._ends))))
        least_bytes = least * max(map(self._line_bytes, self._ends))
        wanted = [f"records_per_shard (--records-per-shard) to {least} or more"] * (records_per_shard < least)
        wanted += [f"bytes_per_shard to {least_bytes} or more"] * (bytes_per_shard < least_bytes)
        raise InputError(
            f"{self._num_snvs():,} SNVs in shards of at most {records_per_shard:,} records and {bytes_per_shard:,} "
            f"bytes of text would be {num:,} shards; a run holds {MAX_SHARDS:,}",
            where="execution.records_per_shard",
            fix=f"set {' and '.join(wanted)}",
        )

    def _cut(self, contig: str, per_shard: int) -> tuple[list[int], list[int], int]:
        """First and last base of each shard of a contig, and the number of bases in all."""
        firsts: list[int] = []
        lasts: list[int] = []
        num, last = 0, 0
        for places, _ in self._bases(contig, 0, self._ends[contig][-1]):
            firsts.extend(places[-num % per_shard :: per_shard].tolist())
            lasts.extend(places[(-num - 1) % per_shard :: per_shard].tolist())
            num += len(places)
            last = int(places[-1])
        if num % per_shard:
            lasts.append(last)
        return firsts, lasts, num

    def _left_out(self, num_records: int) -> list[str]:
        """A note on bases that make no record."""
        num = sum(region.end - region.start for region in self.regions) - num_records // _SNVS_PER_BASE
        return [f"{num:,} bases of the regions are not A, C, G or T in the reference and make no SNV"] if num else []

    def _digest(self) -> str:
        """SHA-256 over what fixes the records: how they are made, sequences, names and regions."""
        digests = self._reference.refget_many(self._by_contig)
        lines = [f"all_snvs {RESULT_VERSION}"]
        lines += [f"{digests[one.contig]}\t{one.contig}\t{one.start}\t{one.end}" for one in self.regions]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _bases(self, contig: str, begin: int, end: int) -> Iterator[Bases]:
        """Known bases of the regions in [begin, end) of a contig, in order, a stretch of at least one at a time."""
        regions = self._by_contig.get(contig, [])
        first = bisect_right(self._ends[contig], begin) if regions else 0
        for index in range(first, len(regions)):
            region = regions[index]
            if region.start >= end:
                return
            low, high = max(region.start, begin), min(region.end, end)
            for start in range(low, high, _CHUNK_BP):
                text = self._reference.fetch(contig, start, min(high, start + _CHUNK_BP))
                letters = np.frombuffer(text.encode("ascii"), np.uint8)
                known = np.flatnonzero(letters != _NO_BASE)
                if len(known):
                    yield known + start, letters[known]

    def _records(self, contig: str, begin: int, end: int, *, first_record: int) -> Iterator[RawRecord]:
        """The SNVs of the known bases in [begin, end), numbered from `first_record`."""
        name, ordinals = contig.encode(), itertools.count(first_record)
        for places, letters in self._bases(contig, begin, end):
            for place, letter in zip(places.tolist(), letters.tolist(), strict=True):
                head = b"%s\t%d" % (name, place + 1)
                for ref, alts, rest in _SNVS[letter]:
                    yield RawRecord(next(ordinals), head + rest, VariantRecord(contig, place, ".", ref, alts))

    def _all_records(self) -> Iterator[RawRecord]:
        first_record = 0
        for contig, ends in self._ends.items():
            for record in self._records(contig, 0, ends[-1], first_record=first_record):
                yield record
                first_record = record.ordinal + 1

    def read(self, shard: Shard) -> Sequence[RawRecord]:
        """See `VariantSource.read`."""
        with as_data_error():
            records = list(self._records(shard.contig or "", shard.begin, shard.end, first_record=shard.first_record))
        check_shard(self.path, shard, records)
        return records


def _check_names(contigs: Iterable[str], reference: ReferenceGenome) -> None:
    for name in contigs:
        if not _is_vcf_contig(name):
            raise InputError(
                f"no VCF can hold records of a contig named {name!r}",
                where=reference.path,
                fix="rename it in the reference, or leave it out of the regions",
            )

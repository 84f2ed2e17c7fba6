"""What a variant source promises: one streamed pass cuts the plan, and a shard can be read again on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.genome.variants import VariantRecord


@dataclass(frozen=True, slots=True)
class Shard:
    """A range of the input; the unit of work, retry and commit.

    `begin` and `end` are BGZF virtual offsets, byte offsets, row numbers or places on its contig, as the source has it.
    A record belongs to the shard that holds its start.
    """

    shard: int
    begin: int
    end: int
    num_records: int
    first_record: int
    contig: str | None
    start: int | None
    last_contig: str | None
    last_start: int | None


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record of the input: its text, and either what it says or why it cannot be read.

    Attributes:
        ordinal: 0-based index among the selected records.
        line: the VCF line without its line end; for tables a line made from the row.
        record: the parsed site, or None where it does not parse.
        problem: (reason code, sentence) where it does not parse.
    """

    ordinal: int
    line: bytes
    record: VariantRecord | None
    problem: tuple[str, str] | None = None


@dataclass(frozen=True)
class Scan:
    """What the planning pass found.

    Attributes:
        shards: the plan, dense and in input order; empty for an input with no selected record.
        num_records: selected records.
        digest: sha256 hex of the input's bytes.
        contigs: contig name to number of selected records, in order of appearance.
        notes: sentences worth logging (a header without contigs, and the like).
    """

    shards: list[Shard]
    num_records: int
    digest: str
    contigs: Mapping[str, int]
    notes: list[str] = field(default_factory=list)


class Plannable(Protocol):
    """An input on a local path that one streamed pass cuts into a plan; one of several files has `paths` too."""

    path: str

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,
        on_record: Callable[[RawRecord], None] | None = None,
        on_record_limit: int = 0,
    ) -> Scan:
        """See `VariantSource.scan`."""
        ...


class VariantSource(Plannable, Protocol):
    """A VCF, BCF or Parquet variant table, opened on a local path, or records made from the reference there."""

    @property
    def header(self) -> bytes:
        """The VCF header text, every line ending in a newline, `#CHROM` line included (made up where there is none)."""
        ...

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,
        on_record: Callable[[RawRecord], None] | None = None,
        on_record_limit: int = 0,
    ) -> Scan:
        """Read the whole input once: cut shards, digest the bytes, check order.

        `on_record` is called for the first `on_record_limit` selected records (pre-flight checks).

        Raises:
            InputError: truncated or corrupt file, unsorted records, no header.
        """
        ...

    def read(self, shard: Shard) -> Sequence[RawRecord]:
        """The records of a shard, in input order.

        Raises:
            DataError: the range no longer holds what the plan says.
        """
        ...

"""Result files of a variant run, made at the commit from checked parts: VCF, index, BCF, TAB, hive folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from engine import __version__
from engine.io import parquet
from engine.io.vcf import add_header_lines, header_contigs, header_info_ids
from engine.io.vcf_sink import finish_vcf, index_vcf
from engine.runtime.commit import Parts
from engine.storage.store import Store, clear_errors

VCF = "scores.vcf.gz"
BCF = "scores.bcf"
VEP_TAB = "scores.vep.tsv.gz"
BY_CONTIG = "by_contig"
RESULTS = (VCF, f"{VCF}.tbi", f"{VCF}.csi", BCF, f"{BCF}.csi", VEP_TAB, f"{VEP_TAB}.tbi", f"{BY_CONTIG}/")


@dataclass(frozen=True)
class ResultOptions:
    """Which result files to make.

    Attributes:
        header: header of the input, as read.
        header_lines: our own INFO, version and command lines.
        contigs: contig to length, for those of the records (lines are added where the header lacks them).
        vcf, bcf, vep_tab, partition_by_contig: as in the spec.
    """

    header: bytes
    header_lines: Sequence[bytes]
    contigs: Mapping[str, int]
    vcf: bool
    bcf: bool
    vep_tab: bool
    partition_by_contig: bool


def write_results(parts: Parts, store: Store, options: ResultOptions) -> dict[str, int]:
    """Write all result files; returns their names with the rows each holds (-1 where that has no meaning)."""
    written: dict[str, int] = {}
    if options.vcf:
        written.update(_write_vcf(parts, store, options))
    if options.partition_by_contig:
        written.update(_write_by_contig(parts, store))
    return written


def command_lines(job: str, settings: Mapping[str, object]) -> list[bytes]:
    """Header lines that say what made the scores: version and settings, without time, host or path."""
    words = " ".join(f"{name}={value}" for name, value in sorted(settings.items()))
    return [f"##replisome_{job}Version={__version__}\n".encode(), f"##replisome_{job}Command={job} {words}\n".encode()]


def _write_vcf(parts: Parts, store: Store, options: ResultOptions) -> Iterator[tuple[str, int]]:
    named = store.scratch()
    folder = named.with_name(named.name + ".vcf")  # htslib puts an index beside its file
    with clear_errors(store.uri):
        folder.mkdir()
        path = folder / VCF
        finish_vcf(_full_header(options), parts.bodies(), path)
        made = [path, Path(index_vcf(path))]
        if options.bcf:
            from engine.io.vcf_sink import to_bcf

            made += _beside(folder, to_bcf, path, name=BCF)
        if options.vep_tab:
            from engine.io.vep import vep_custom_tab

            tags = header_info_ids(b"\n".join(options.header_lines))
            made += _beside(folder, partial(vep_custom_tab, tags=tags), path, name=VEP_TAB)
    for file in made:
        store.put_file(file, file.name)
        yield file.name, -1
    folder.rmdir()


def _beside(folder: Path, make: Callable[[Path, Path], object], source: Path, *, name: str) -> list[Path]:
    """Files that a writer made beyond those that were there: the result and its index."""
    before = set(folder.iterdir())
    make(source, folder / name)
    return sorted(set(folder.iterdir()) - before)


def _full_header(options: ResultOptions) -> bytes:
    known = header_contigs(options.header)
    contigs = [
        f"##contig=<ID={name},length={length}>\n".encode()
        for name, length in options.contigs.items()
        if name not in known
    ]
    return add_header_lines(options.header, [*contigs, *options.header_lines])


def _write_by_contig(parts: Parts, store: Store) -> Iterator[tuple[str, int]]:
    """A copy of the table in hive folders: polars, DuckDB and pyarrow read `contig=NAME` as the column."""
    for shard, table in enumerate(parts.tables()):
        for contig in pc.unique(table["contig"]).to_pylist():
            mask = pc.is_null(table["contig"]) if contig is None else pc.equal(table["contig"], contig)
            some: pa.Table = table.filter(mask)
            hive = "__HIVE_DEFAULT_PARTITION__" if contig is None else quote(contig, safe="")
            name = f"{BY_CONTIG}/contig={hive}/part-{shard:06d}.parquet"
            local = store.scratch()
            with clear_errors(store.uri):
                parquet.write_table(
                    some.drop_columns(["contig"]), local, schema_name="variant_scores_by_contig", version=1
                )
            store.put_file(local, name)
            yield name, some.num_rows

"""Parts of a made-up variant-scoring run, seeded: every state and reason, missing and NaN scores, ties, two panels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from engine.scoring._variant_report import Panel
from schemas.states import REJECT_REASONS
from schemas.tables import VARIANT_SCORES

# In the order of a scorer's columns; the page shows ds_max first.
GIVEN_SCORES = ("ds_ag", "ds_al", "ds_dg", "ds_dl", "ds_max", "inclusion_change")
SCORES = ("ds_max", "ds_ag", "ds_al", "ds_dg", "ds_dl", "inclusion_change")
FLOATS = ("ds_ag", "ds_al", "ds_dg", "ds_dl", "ds_max", "pwm_change", "inclusion_change")
OFFSETS = ("dp_ag", "dp_al", "dp_dg", "dp_dl")
INFO = ("info_SET", "info_DPSI", "info_CLASS", "info_PLACE", "info_EXON")
SCHEMA = pa.schema(
    [
        *VARIANT_SCORES,
        *(pa.field(name, pa.float32()) for name in FLOATS),
        *(pa.field(name, pa.int32()) for name in OFFSETS),
        pa.field("flags", pa.string()),
        *(pa.field(name, pa.string()) for name in INFO),
    ]
)
VEX = Panel(
    title="Exon inclusion measured on constructs",
    kind="signed",
    where={"SET": "vex"},
    truth="DPSI",
    scores=("inclusion_change", "pwm_change"),
    note="Synthetic values in the shape of a splicing reporter assay.",
    cluster="EXON",
    group="PLACE",
)
BRCA = Panel(
    title="Loss of function in a saturation screen",
    kind="classes",
    where={"SET": "screen"},
    truth="CLASS",
    positive=("LOF",),
    negative=("FUNC",),
    scores=("inclusion_change", "ds_max"),
    flip=True,
    group="PLACE",
)
PANELS = (VEX, BRCA)
PROVENANCE: dict[str, Any] = {
    "result_key": "5f2c" * 16,
    "model": {"name": "splice-mini", "version": "1", "digest": "sha256:" + "a1" * 32, "licence": "Apache-2.0"},
    "reference": {"refget": {f"chr{i}": "SQ." + "x" * 32 for i in range(1, 23)}},
    "input": {"name": "variants.vcf.gz", "digest": "sha256:" + "b2" * 32},
    "genes": {"name": "genes.gtf.gz", "digest": "sha256:" + "c3" * 32},
    "versions": {"replisome": "0.1.0", "torch": "2.10.0", "numpy": "2.4.6"},
    "command": ["replisome", "score-variants", "variants.vcf.gz", "-o", "out dir"],
    "samples": ["NA12878", "NA24385"],
}
TIMINGS = {"wall_s": 83.4, "cpu_s": 151.25, "records_per_s": 41.7, "workers": 2, "executor": "in-process"}


def make_row(record: int, **values: Any) -> dict[str, Any]:
    """A scored row with every other column null."""
    row: dict[str, Any] = dict.fromkeys(SCHEMA.names)
    row.update(record=record, alt_index=1, contig="chr1", start=record * 7, id=".", ref="A", alt="G", state="scored")
    return row | values


def splice(rng: np.random.Generator) -> dict[str, Any]:
    """Scores, offsets and flags of one row."""
    deltas = {name: float(np.float32(rng.beta(0.25, 6.0))) for name in ("ds_ag", "ds_al", "ds_dg", "ds_dl")}
    if rng.random() < 0.1:
        deltas["ds_ag"] = 0.0
    offsets = {name: int(rng.integers(-50, 51)) for name in OFFSETS}
    change = float(np.float32(rng.normal(0, 0.05)))
    flags = ("", "", "long_deletion", "iupac_letters", "long_deletion,iupac_letters")[int(rng.integers(0, 5))]
    return {
        **deltas,
        **offsets,
        "flags": flags,
        "ds_max": max(deltas.values()),
        "inclusion_change": change,
        "pwm_change": 2 * change,
    }


def _gene(number: int) -> dict[str, Any]:
    return {"gene_id": f"G{number:04d}", "gene_symbol": f"GENE{number}", "transcript_id": f"T{number:04d}.2"}


def _genome(rng: np.random.Generator, size: int) -> Iterator[dict[str, Any]]:
    reject = sorted(REJECT_REASONS)
    for record in range(size):
        place = {"contig": f"chr{1 + int(rng.integers(0, 22))}", "start": int(rng.integers(1, 240_000_000))}
        kind = rng.random()
        if kind < 0.45:
            yield make_row(record, **place, state="not_applicable", reason="outside_genes")
        elif kind < 0.48:
            yield make_row(record, **place, state="not_applicable", reason="star_allele", alt="*")
        elif kind < 0.52:
            yield make_row(record, **place, state="rejected", reason=reject[record % len(reject)])
        else:
            for gene in range(1 + int(kind > 0.95)):
                named = _gene(int(rng.integers(0, 90)) + 100 * gene)
                yield make_row(record, **place, **named, **splice(rng))


def _constructs(rng: np.random.Generator, start: int, size: int) -> Iterator[dict[str, Any]]:
    for i in range(size):
        exon = int(rng.integers(0, 79))
        change = float(np.clip(rng.standard_t(2) * 8 - 2, -100, 100))
        score = float(np.float32(np.tanh(change / 40 + rng.normal(0, 0.35))))
        pwm = float(np.float32(change / 12 + rng.normal(0, 2.5)))
        truth = "not measured" if i % 97 == 0 else f"{change:.2f}"
        scores = splice(rng) | {"inclusion_change": math.nan if i % 211 == 5 else score, "pwm_change": pwm}
        info = {"info_SET": "vex", "info_DPSI": truth, "info_EXON": f"exon {exon}"}
        info["info_PLACE"] = ("acceptor", "donor", "exon", "intron")[int(rng.integers(0, 4))]
        yield make_row(start + i, contig=f"construct_{exon:02d}", **_gene(300 + exon), **scores, **info)


def _screen(rng: np.random.Generator, start: int, size: int) -> Iterator[dict[str, Any]]:
    for i in range(size):
        name = ("LOF", "FUNC", "FUNC", "INT")[int(rng.integers(0, 4))]
        score = float(np.float32(rng.normal(-0.25 if name == "LOF" else 0.0, 0.15)))
        place = "canonical" if name == "FUNC" and i < 12 else "splice region"
        info = {"info_SET": "screen", "info_CLASS": name, "info_PLACE": place}
        scores = splice(rng) | {"inclusion_change": score}
        for copy in range(1 + int(i % 50 == 0)):
            named = {"gene_id": "G9999" if copy == 0 else "G9998", "gene_symbol": "BRCA1" if copy == 0 else "NBR2"}
            yield make_row(start + i, contig="chr17", ref="ACGTACGTACGTACGTAC", **named, **scores, **info)


def make_table(seed: int = 7, *, genome: int = 1500, constructs: int = 700, screen: int = 300) -> pa.Table:
    """A run of three kinds of input, with every state and reason, missing and NaN scores and ties."""
    rng = np.random.default_rng(seed)
    rows = list(_genome(rng, genome))
    rows += _constructs(rng, genome, constructs)
    rows += _screen(rng, genome + constructs, screen)
    rows.append(
        make_row(genome + constructs + screen, contig=None, start=None, state="rejected", reason="malformed_record")
    )
    rows[-1].update(ref=None, alt=None, alt_index=0)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def cut(table: pa.Table, sizes: list[int]) -> list[pa.Table]:
    """The table in consecutive slices; what is left makes the last."""
    parts, start = [], 0
    for size in sizes:
        parts.append(table.slice(start, size))
        start += size
    return [*parts, table.slice(start)]

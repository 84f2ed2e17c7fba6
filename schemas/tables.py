"""Arrow schemas of every table a run writes, with field docs and units.

Coordinates are 0-based half-open. Every file names its schema and version in its footer.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_KEY = b"replisome.schema"


def field(name: str, kind: pa.DataType, doc: str, *, nullable: bool = True) -> pa.Field:
    """An Arrow field that carries its documentation."""
    return pa.field(name, kind, nullable=nullable, metadata={"doc": doc})


VARIANT_SCORES_VERSION = 1
# Scorers append their own columns, and `info_<KEY>` columns follow for each INFO key kept on request.
VARIANT_SCORES = pa.schema(
    [
        field(
            "record", pa.int64(), "0-based ordinal of the record among those selected from the input", nullable=False
        ),
        field("contig", pa.string(), "contig as written in the input"),
        field("start", pa.int64(), "0-based start of REF as written (VCF POS - 1)"),
        field("id", pa.string(), "VCF ID as written"),
        field("ref", pa.string(), "REF as written"),
        field("alt", pa.string(), "this ALT allele as written; null where the record has none"),
        field("alt_index", pa.int32(), "1-based index of the ALT allele in its record; 0 where the record has none"),
        field("norm_start", pa.int64(), "0-based start of the normal form (trimmed, left-aligned); the join key"),
        field("norm_ref", pa.string(), "REF of the normal form (VCF style, anchored)"),
        field("norm_alt", pa.string(), "ALT of the normal form (VCF style, anchored)"),
        field("gene_id", pa.string(), "gene id, null outside genes or where the scorer needs none"),
        field("gene_symbol", pa.string(), "gene symbol"),
        field("transcript_id", pa.string(), "versioned transcript id the row was scored on"),
        field("strand", pa.string(), "+ or -"),
        field("state", pa.string(), "scored, not_applicable or rejected", nullable=False),
        field("reason", pa.string(), "reason code where not scored (schemas/states.py)"),
    ]
)

REJECTS_VERSION = 1
REJECTS = pa.schema(
    [
        field("record", pa.int64(), "0-based ordinal of the record", nullable=False),
        field("alt_index", pa.int32(), "1-based index of the ALT allele; 0 for the whole record", nullable=False),
        field("reason", pa.string(), "reason code (schemas/states.py)", nullable=False),
        field("sentence", pa.string(), "what was found, with values", nullable=False),
        field("text", pa.string(), "the first eight columns of the line, at most 1,000 characters"),
    ]
)

PLAN_VERSION = 1
PLAN = pa.schema(
    [
        field("shard", pa.int64(), "shard id, 0-based, dense", nullable=False),
        field("begin", pa.uint64(), "BGZF virtual offset, byte offset or row of the first record", nullable=False),
        field("end", pa.uint64(), "the same, just past the last record", nullable=False),
        field("num_records", pa.int64(), "exact number of selected records", nullable=False),
        field("first_record", pa.int64(), "ordinal of the first record", nullable=False),
        field("contig", pa.string(), "contig of the first record"),
        field("start", pa.int64(), "0-based start of the first record"),
        field("last_contig", pa.string(), "contig of the last record"),
        field("last_start", pa.int64(), "0-based start of the last record"),
    ]
)

RECEIPTS_VERSION = 1
RECEIPTS = pa.schema(
    [
        field("shard", pa.int64(), "shard id", nullable=False),
        field("records_in", pa.int64(), "records read", nullable=False),
        field("rows_out", pa.int64(), "rows of the data part", nullable=False),
        field("scored", pa.int64(), "rows scored", nullable=False),
        field("not_applicable", pa.int64(), "rows not applicable", nullable=False),
        field("rejected", pa.int64(), "rows rejected", nullable=False),
        field("reasons", pa.string(), "JSON object: reason code to number of rows", nullable=False),
        field("files", pa.string(), "JSON object: file path to [bytes, crc32c, rows]", nullable=False),
        field("notes", pa.string(), "JSON object: what voids the byte promise, such as halved batches", nullable=False),
    ]
)

FILES_VERSION = 1
FILES = pa.schema(
    [
        field("path", pa.string(), "path below the output", nullable=False),
        field("kind", pa.string(), "plan, data, rejects, vcf, receipts, result", nullable=False),
        field("bytes", pa.int64(), "size", nullable=False),
        field("crc32c", pa.uint32(), "CRC-32C of the whole file", nullable=False),
        field("rows", pa.int64(), "rows, where the file is a table"),
    ]
)

SCORE_STORE_VERSION = 1
# Key columns of a score store's segments; the columns of the scorer follow. One file holds one reference sequence.
SCORE_STORE = pa.schema(
    [
        field("norm_start", pa.int64(), "0-based start of the normal form; the join key", nullable=False),
        field("norm_ref", pa.string(), "REF of the normal form", nullable=False),
        field("norm_alt", pa.string(), "ALT of the normal form", nullable=False),
        field("start", pa.int64(), "0-based start of REF as written", nullable=False),
        field("ref", pa.string(), "REF as written, upper case", nullable=False),
        field("alt", pa.string(), "ALT as written, upper case", nullable=False),
        field("transcript", pa.string(), "digest of strand, bounds and exons; empty without genes", nullable=False),
    ]
)

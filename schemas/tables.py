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

RECEIPTS_VERSION = 2
RECEIPTS = pa.schema(
    [
        field("shard", pa.int64(), "shard id", nullable=False),
        field("records_in", pa.int64(), "records read", nullable=False),
        field("rows_out", pa.int64(), "rows of the data part", nullable=False),
        field("scored", pa.int64(), "rows scored", nullable=False),
        field("not_applicable", pa.int64(), "rows not applicable", nullable=False),
        field("rejected", pa.int64(), "rows rejected", nullable=False),
        field("kept", pa.int64(), "rows kept by an ingest", nullable=False),
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

SEQUENCES_VERSION = 2
SEQUENCES = pa.schema(
    [
        field("record", pa.int64(), "0-based ordinal of the record in the input", nullable=False),
        field("id", pa.string(), "name as written; null where the record has none"),
        field("sequence", pa.string(), "upper-case letters of the declared alphabet; null where rejected"),
        field("length", pa.int32(), "letters of the sequence as read", nullable=False),
        field("second", pa.string(), "the other member of a pair, SMILES or letters; null where there is none"),
        field("second_id", pa.string(), "name of the other member; null where it has none"),
        field("label", pa.string(), "class as written; null where there is none"),
        field("position_labels", pa.string(), "for each letter of the sequence its class, a letter; . where not known"),
        field("target", pa.float64(), "the one target of a regression; null where there is none, or several"),
        field("targets", pa.list_(pa.float64()), "several targets, then bins of tracks; or 0/1 for each class"),
        field("group", pa.string(), "what must not straddle splits: gene, family, donor"),
        field("contig", pa.string(), "contig of a window"),
        field("start", pa.int64(), "0-based start of the window, margin included; negative before the contig"),
        field("end", pa.int64(), "end of the window, exclusive"),
        field("strand", pa.string(), "+ or -; the sequence is that of this strand"),
        field("state", pa.string(), "kept or rejected", nullable=False),
        field("reason", pa.string(), "reason code where rejected (schemas/states.py)"),
    ]
)

# Among the facts of a set's manifest: names of `target` or `targets`, in their order, as the columns they come from.
TARGET_NAMES = "target_names"

DUPLICATES_VERSION = 2
DUPLICATES = pa.schema(
    [
        field("record", pa.int64(), "ordinal of the record that repeats an earlier one", nullable=False),
        field("first_record", pa.int64(), "ordinal of the earlier record that it repeats", nullable=False),
        field("similarity", pa.float64(), "Jaccard index of the k-mers of near duplicates; null where they are equal"),
        field("conflict", pa.bool_(), "whether label or targets differ from the first's", nullable=False),
    ]
)

SPLITS_VERSION = 2
# Version 1 had no unit; it is read as before.
SPLITS = pa.schema(
    [
        field("record", pa.int64(), "ordinal of the record in the data set", nullable=False),
        field("id", pa.string(), "name of the record"),
        field("split", pa.string(), "train, validation, test or unused", nullable=False),
        field("fold", pa.int32(), "0-based fold that holds the record out; null outside the folds"),
        field(
            "unit",
            pa.int64(),
            "ordinal of the first record of the group, contig or cluster that this one is never parted from;"
            " null where records are parted one by one",
        ),
    ]
)

VARIANT_SITES_VERSION = 1
# `info_<KEY>` columns follow for each INFO field asked for, typed as the header declares it; then VARIANT_CALLS.
VARIANT_SITES = pa.schema(
    [
        field("record", pa.int64(), "0-based ordinal of the record in the input", nullable=False),
        field("contig", pa.string(), "contig as written"),
        field("start", pa.int64(), "0-based start of REF as written (VCF POS - 1)"),
        field("end", pa.int64(), "end of the bases covered, exclusive: of REF, or INFO END where that is given"),
        field("id", pa.string(), "VCF ID as written"),
        field("ref", pa.string(), "REF as written"),
        field("alts", pa.list_(pa.string()), "ALT alleles as written; empty where there is none"),
        field("qual", pa.float32(), "QUAL, Phred-scaled; null where missing"),
        field("filters", pa.list_(pa.string()), "FILTER values, PASS among them; null where no filter was applied"),
        field(
            "state", pa.string(), "kept or rejected; a rejected row holds nothing else but its reason", nullable=False
        ),
        field("reason", pa.string(), "reason code where rejected (schemas/states.py)"),
    ]
)
VARIANT_CALLS = (
    field("ploidy", pa.int32(), "copies per sample in call_genotype; null where the record has no GT"),
    field(
        "call_genotype",
        pa.binary(),
        "int16, little-endian, samples by copies: allele indexes, -1 missing, -2 beyond the call's own copies",
    ),
    field("call_genotype_phased", pa.binary(), "one byte per sample: 1 where the call is phased"),
)

TRAINING_OUTPUTS_VERSION = 1
# The footer's `outputs` is a JSON list of the names of the model's outputs.
TRAINING_OUTPUTS = pa.schema(
    [
        field("record", pa.int64(), "ordinal of the record in the data set", nullable=False),
        field("split", pa.string(), "validation or test", nullable=False),
        field("target", pa.list_(pa.float64()), "the truth: number of the class, or the numbers asked for"),
        field("values", pa.list_(pa.float64()), "the model's outputs, activated; of an ensemble their mean"),
    ]
)

OUT_OF_FOLD_VERSION = 1
# The footer's `outputs` is a JSON list of the names of the model's outputs.
OUT_OF_FOLD = pa.schema(
    [
        field("record", pa.int64(), "ordinal of the record in the data set", nullable=False),
        field("fold", pa.int32(), "the fold that held it out", nullable=False),
        field("target", pa.list_(pa.float64()), "the truth: number of the class, or the numbers asked for"),
        field("values", pa.list_(pa.float64()), "outputs of the model that was not trained on it, activated"),
    ]
)

TRIALS_VERSION = 1
# A column for each searched key follows, named as the key: numbers, switches and text as they are, else JSON.
TRIALS = pa.schema(
    [
        field("trial", pa.int32(), "number of the trial, from 0", nullable=False),
        field("state", pa.string(), "completed, stopped (early, by the rule) or failed", nullable=False),
        field("epochs", pa.int32(), "epochs judged, of the first network", nullable=False),
        field("value", pa.float64(), "the monitored figure on the validation rows; of a stopped trial its best so far"),
        field("is_best", pa.bool_(), "the trial of best.yaml", nullable=False),
        field("curve", pa.list_(pa.float64()), "the monitored figure after each epoch of the first network"),
        field("reason", pa.string(), "why it was stopped or failed"),
        field("splits", pa.string(), "SHA-256 of the split file", nullable=False),
    ]
)

PREDICTIONS_VERSION = 1
# Columns of the model's heads follow; see engine/scoring/_prediction_columns.py.
PREDICTIONS = pa.schema(
    [
        field("record", pa.int64(), "ordinal of the record in the sequence set", nullable=False),
        field("id", pa.string(), "name of the record"),
        field("length", pa.int32(), "letters of the sequence", nullable=False),
        field("contig", pa.string(), "contig of a window"),
        field("start", pa.int64(), "0-based start of the window"),
        field("end", pa.int64(), "end of the window, exclusive"),
        field("strand", pa.string(), "+ or -; the sequence is that of this strand"),
        field("state", pa.string(), "scored, not_applicable or rejected", nullable=False),
        field("reason", pa.string(), "reason code where not scored (schemas/states.py)"),
    ]
)
IMAGE_PREDICTIONS_VERSION = 1
IMAGE_PREDICTIONS = pa.schema(
    [
        field("record", pa.int64(), "ordinal of the image in the set; its row of masks.zarr/0", nullable=False),
        field("id", pa.string(), "name of the image", nullable=False),
        field("label", pa.string(), "class as the set has it; null where there is none"),
        field("group", pa.string(), "what must not straddle splits"),
        field("state", pa.string(), "scored, not_applicable or rejected", nullable=False),
        field("reason", pa.string(), "reason code where not scored (schemas/states.py)"),
    ]
)
NUM_OBJECTS = field("num_objects", pa.int32(), "objects found in the image")

OBJECTS_VERSION = 1
OBJECTS = pa.schema(
    [
        field("record", pa.int64(), "ordinal of the image in the set", nullable=False),
        field("id", pa.string(), "name of the image", nullable=False),
        field("object", pa.int64(), "its number in the image's mask", nullable=False),
        field("area_px", pa.int64(), "pixels", nullable=False),
        field("centre_y", pa.float64(), "row of its centre, from the middle of the first pixel", nullable=False),
        field("centre_x", pa.float64(), "column of its centre", nullable=False),
        field("major_axis_px", pa.float64(), "length of the ellipse with its second moments", nullable=False),
        field("minor_axis_px", pa.float64(), "width of that ellipse", nullable=False),
        field("eccentricity", pa.float64(), "0 of a circle to 1 of a line", nullable=False),
        field("orientation", pa.float64(), "radians from the axis of rows to the major axis", nullable=False),
        field("y_begin", pa.int64(), "first row", nullable=False),
        field("y_end", pa.int64(), "row behind the last", nullable=False),
        field("x_begin", pa.int64(), "first column", nullable=False),
        field("x_end", pa.int64(), "column behind the last", nullable=False),
        field("touches_edge", pa.bool_(), "whether the image ends where it does", nullable=False),
        field("intensity_mean", pa.list_(pa.float64()), "mean of each channel", nullable=False),
        field("intensity_std", pa.list_(pa.float64()), "population standard deviation of each channel", nullable=False),
        field("intensity_min", pa.list_(pa.float64()), "lowest value of each channel", nullable=False),
        field("intensity_max", pa.list_(pa.float64()), "highest value of each channel", nullable=False),
    ]
)
# What an evaluation keeps of the set beside PREDICTIONS; the columns of the judged head follow.
TRUTHS = tuple(SEQUENCES.field(name) for name in ("label", "target", "targets", "group"))

EVALUATION_VERSION = 1
EVALUATION = pa.schema(
    [
        field(
            "scope",
            pa.string(),
            "all, class (label, number), threshold (IoU of objects) or group",
            nullable=False,
        ),
        field("column", pa.string(), "of a group: the column of the audit; else empty", nullable=False),
        field("name", pa.string(), "of the class, threshold or group; else empty", nullable=False),
        field("metric", pa.string(), "which figure", nullable=False),
        field("num", pa.int64(), "rows it is of", nullable=False),
        field("num_positive", pa.int64(), "rows, positions, pixels of the class; objects matched at the threshold"),
        field("value", pa.float64(), "the figure; null where it has none, and for fewer than 5 rows"),
        field("low", pa.float64(), "2.5 percentile over bootstrap samples"),
        field("high", pa.float64(), "97.5 percentile over bootstrap samples"),
    ]
)

IMAGES_VERSION = 1
IMAGES = pa.schema(
    [
        field("record", pa.int64(), "0-based ordinal of the image in the input", nullable=False),
        field(
            "id", pa.string(), "name in the set: path below the input folder, or plate, well and field", nullable=False
        ),
        field("kind", pa.string(), "file, site (of a plate), zarr, rows (of a Zarr array) or absent", nullable=False),
        field("folder", pa.int32(), "which of the input folders, from 0 on", nullable=False),
        field(
            "files", pa.list_(pa.string()), "source: paths below that folder; of Zarr the store, then the path in it"
        ),
        field("t", pa.int32(), "0-based time in the source", nullable=False),
        field("z", pa.int32(), "0-based depth in the source; null where the image is whole in depth"),
        field("plate", pa.string(), "plate"),
        field("well", pa.string(), "well, row then column"),
        field("field", pa.string(), "field (site) of the well"),
        field("shape", pa.list_(pa.int32()), "C, Y, X or C, Z, Y, X; null where unreadable"),
        field("dtype", pa.string(), "pixel type; null where unreadable"),
        field("pixel_size_um", pa.list_(pa.float64()), "micrometres along (z,) y, x; null where not known"),
        field("channels", pa.list_(pa.string()), "names of the channels; null where not known"),
        field("label", pa.string(), "class as written; null where there is none"),
        field("group", pa.string(), "what must not straddle splits: donor, plate, well, stack"),
        field("mask", pa.string(), "source of the mask; null where there is none"),
        field("num_objects", pa.int32(), "labels other than 0 in the mask"),
        field("minimum", pa.list_(pa.float64()), "lowest value of each channel"),
        field("maximum", pa.list_(pa.float64()), "highest value of each channel"),
        field("mean", pa.list_(pa.float64()), "mean of each channel"),
        field("standard_deviation", pa.list_(pa.float64()), "population standard deviation of each channel"),
        field("pixel_digest", pa.string(), "BLAKE2b-128 hex of type, shape and pixels (little-endian, C order)"),
        field("mask_digest", pa.string(), "the same of the mask"),
        field("array", pa.string(), "array of images.zarr that holds the image; null where rejected"),
        field("row", pa.int64(), "its row in that array; its mask has the same row of labels/masks beside it"),
        field("state", pa.string(), "kept or rejected", nullable=False),
        field("reason", pa.string(), "reason code where rejected (schemas/states.py)"),
        field("sentence", pa.string(), "what was found, where rejected"),
    ]
)

EXPLANATIONS_VERSION = 1
# PREDICTIONS come first. Then for each explained channel its columns, see engine/interpret/_explain_stages.py.
EXPLANATIONS = (
    field("row", pa.int64(), "row of the record in the arrays of attributions.zarr", nullable=False),
    field("sequence", pa.string(), "letters as the model read them; null where not scored"),
)

MOTIF_HITS_VERSION = 1
MOTIF_HITS = pa.schema(
    [
        field("record", pa.int64(), "ordinal of the record in the sequence set", nullable=False),
        field("id", pa.string(), "name of the record"),
        field("output", pa.string(), "the explained channel", nullable=False),
        field("motif", pa.string(), "id of the motif", nullable=False),
        field("name", pa.string(), "its name", nullable=False),
        field("start", pa.int64(), "0-based start of its best place in the sequence", nullable=False),
        field("end", pa.int64(), "end of it, exclusive", nullable=False),
        field("strand", pa.string(), "+ or -, of the sequence as it was read", nullable=False),
        field("score", pa.float64(), "log-odds in bits", nullable=False),
        field("p_value", pa.float64(), "chance of that score or more at one place of one strand", nullable=False),
        field("contribution", pa.float64(), "sum of the contributions under it", nullable=False),
        field("rank", pa.float64(), "its share of windows of that width with smaller |contributions|", nullable=False),
        field("rank_variance", pa.float64(), "of the rank where every window is as likely", nullable=False),
    ]
)

MOTIF_MATCHES_VERSION = 1
MOTIF_MATCHES = pa.schema(
    [
        field("output", pa.string(), "the explained channel", nullable=False),
        field("motif", pa.string(), "id of the motif", nullable=False),
        field("name", pa.string(), "its name", nullable=False),
        field("consensus", pa.string(), "the most frequent letter of every place", nullable=False),
        field("hits", pa.int64(), "sequences with a hit", nullable=False),
        field("mean_rank", pa.float64(), "mean rank of the hits' windows; one half where it says nothing"),
        field("mean_contribution", pa.float64(), "mean of the hits' summed contributions"),
        field("p_value", pa.float64(), "that attributions are no higher under it; null for fewer than 3 hits"),
        field("q_value", pa.float64(), "Benjamini and Hochberg's, over the motifs of the channel"),
    ]
)

TRACK_TILES_VERSION = 1
# A column of values for each channel and strand follows; see engine/scoring/_track_stages.py.
TRACK_TILES = pa.schema(
    [
        field("record", pa.int64(), "0-based ordinal of the tile", nullable=False),
        field("contig", pa.string(), "contig, as the reference names it", nullable=False),
        field("start", pa.int64(), "0-based start of the tile", nullable=False),
        field("end", pa.int64(), "end of it, exclusive", nullable=False),
        field(
            "span", pa.int32(), "bases a value stands for; the last one may be cut by the contig's end", nullable=False
        ),
        field("state", pa.string(), "scored, not_applicable or rejected", nullable=False),
        field("reason", pa.string(), "reason code where not scored (schemas/states.py)"),
    ]
)

"""The states a row can end in, and the reason codes with their sentences.

A scored (record, ALT allele, gene) is scored, not applicable or rejected; an ingested record is kept or rejected. Each
set is disjoint and complete. Only `rejected` counts against the reject limit.
"""

from __future__ import annotations

from collections.abc import Mapping

SCORED = "scored"
NOT_APPLICABLE = "not_applicable"
REJECTED = "rejected"
STATES = (SCORED, NOT_APPLICABLE, REJECTED)
KEPT = "kept"
INGEST_STATES = (KEPT, REJECTED)
ALL_STATES = (KEPT, *STATES)

NOT_APPLICABLE_REASONS = {
    "outside_genes": "the written POS lies in no gene of the gene table",
    "star_allele": "ALT is *, a deletion described by another record",
    "reference_only": "the record has no ALT allele, or one that names no change (<*>, <NON_REF>, <X>)",
    "not_kept": "the ingest rejected this record, so there is nothing to read",
    "other_split": "the record is not in the split that is judged",
    "no_bases": "the reference knows none of the bases there",
}

REJECT_REASONS = {
    "malformed_record": "the line does not parse as a VCF record",
    "bad_position": "POS is not a whole number of 1 or more, or is past the end of the contig",
    "bad_allele": "REF or ALT holds letters that are no bases",
    "ref_mismatch": "REF differs from the reference genome",
    "symbolic_allele": "ALT is symbolic (such as <DEL>), which names no sequence",
    "breakend": "ALT is a breakend, which this scorer does not take",
    "alt_equals_ref": "ALT equals REF",
    "past_contig_end": "REF reaches past the end of the contig",
    "allele_too_long": "REF or ALT is longer than the scorer's limit",
    "near_contig_end": "the compatibility mode's tool gives no score this near to an end of the contig",
    "model_output_not_finite": "the model returned NaN or infinity",
    "damaged_image": "a chunk of the image is missing from the set, or its checksum does not hold",
    "peer_refusal": "the compatibility mode's tool refuses this allele",
}

IMAGE_REASONS = {
    "missing_file": "the table names a file that is not there",
    "unreadable": "the file or store does not decode whole: damaged, cut short, or of no known format",
    "unsupported_image": "an image that could only be taken by guessing: transparent, 16-bit colour PNG, CMYK, ...",
    "too_large": "more pixels than the limit",
    "missing_chunk": "a Zarr chunk is not there, and no fill value was asked for in its place",
    "missing_channel": "a site of a plate lacks the file of a channel or depth",
    "ambiguous_files": "two files of a plate claim the same place",
    "empty_image": "no pixels, or all of one value",
    "not_finite": "a pixel is NaN or infinite",
    "missing_mask": "masks were asked for and this image has none",
    "unreadable_mask": "the mask does not decode, or holds no labels",
    "mask_shape_differs": "the mask is of another size than its image",
    "dtype_differs": "the pixels are of another type than the set's",
    "channels_differ": "the image has another number of channels than the set's",
    "size_differs": "the image is of another size than the set's",
    "duplicate_pixels": "the same pixels as an earlier kept image",
    "conflicting_pixels": "the same pixels as an earlier kept image, with another label or mask",
}

INGEST_REASONS = {
    **IMAGE_REASONS,
    "malformed_record": "the text is no record of its format: fields missing, lengths that differ, no name",
    "empty_sequence": "the record has no sequence",
    "invalid_letters": "more letters outside the alphabet than the limit",
    "ambiguous_letters": "more ambiguous letters (such as N or X) than the limit",
    "too_short": "the sequence is shorter than the limit",
    "too_long": "the sequence is longer than the limit",
    "missing_second": "the record is no pair: the other member is not there",
    "invalid_second": "the other member of the pair is no SMILES, or holds letters outside its alphabet",
    "second_too_long": "the other member of the pair is longer than the limit",
    "position_labels_length": "there is not one position label for each letter of the sequence",
    "missing_label": "labels were asked for and this record has none",
    "unknown_label": "the label is not among the declared classes",
    "missing_target": "targets were asked for and one is empty",
    "bad_target": "a target is no finite number",
    "past_contig_end": "the window reaches past an end of its contig",
    "exact_duplicate": "the same sequence (of a pair: both members) as an earlier kept record",
    "near_duplicate": "nearly the sequence of an earlier kept record",
    "bad_position": "POS is not a whole number of 1 or more",
    "bad_info": "an INFO value is not of the type that the header declares",
    "bad_format": "a FORMAT value is not of the type that the header declares",
    "bad_genotype": "a GT does not parse, or is not the first key of FORMAT",
    "genotype_out_of_range": "a GT names an allele that the record does not have",
    "conflicting_duplicate": "the same sequence (of a pair: both members) as an earlier kept record, with another label"
    " or target",
}


def states_of(counts: Mapping[str, int]) -> tuple[str, ...]:
    """The set of states that counts belong to: the one of ingest where anything was kept, else the one of scoring."""
    return INGEST_STATES if counts.get(KEPT) else STATES

"""The three states a (record, ALT allele, gene) can end in, and the reason codes with their sentences.

The states are disjoint and complete. Only `rejected` counts against the reject limit.
"""

from __future__ import annotations

SCORED = "scored"
NOT_APPLICABLE = "not_applicable"
REJECTED = "rejected"
STATES = (SCORED, NOT_APPLICABLE, REJECTED)

NOT_APPLICABLE_REASONS = {
    "outside_genes": "the written POS lies in no gene of the gene table",
    "star_allele": "ALT is *, a deletion described by another record",
    "reference_only": "the record has no ALT allele, or one that names no change (<*>, <NON_REF>, <X>)",
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
    "peer_refusal": "the compatibility mode's tool refuses this allele",
}

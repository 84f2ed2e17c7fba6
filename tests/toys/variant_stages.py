"""A toy world for the stages of score-variants, and both stages run over all its shards."""

from __future__ import annotations

import pickle
from dataclasses import replace

from engine.models.dilated_conv import DilatedConvParams
from engine.scoring._variant_stages import VariantStages
from tests.toys import genome, models


def make_world(folder):
    """A genome, its models and two VCFs: valid records, and all that is wrong beside them."""
    toy = genome.make_genome(folder / "genome")
    models.splice_grammar_toy(folder / "grammar")
    models.splice_motifs(folder / "motifs", members=2)
    models.base_counter(folder / "counter")
    models.splice_motifs(folder / "untagged")
    params = DilatedConvParams(channels=8, blocks=((5, 2),) * 2, skip_every=0)
    models.random_network(folder / "random", params, members=2)
    order = list(toy.contigs)
    records = genome.toy_records(toy) + genome.bad_records(toy) + genome.random_records(toy, 150)
    records.sort(key=lambda one: (order.index(one.contig), one.pos))
    genome.write_vcf(folder / "good.vcf.gz", records, toy, num_samples=2)
    lines = [one.line(2) for one in records]
    at = next(number for number, one in enumerate(records) if one.pos > 1_601)
    for number, line in enumerate(broken_lines(toy)):
        lines.insert(at + number, line)
    genome.write_vcf(folder / "bad.vcf", lines, toy, num_samples=2)
    return folder, toy, records


def broken_lines(toy):
    """Lines that do not parse, with samples where they have the columns for them."""
    return [line + "\tGT:DP\t0/1:3\t0/1:4" * (line.count("\t") > 5) for _, line in genome.broken_lines(toy)]


def stages_of(world, name="good.vcf.gz", *, model="grammar", **given):
    folder, toy, _ = world
    made = VariantStages(
        input_path=str(folder / name),
        reference_path=str(toy.fasta),
        genes_path=str(toy.ensembl_gtf),
        model=str(folder / model),
    )
    return replace(made, **given)


def run(stages, *, records_per_shard=1000):
    """Both stages over all shards; batch and stages cross a process border on the way."""
    stages = pickle.loads(pickle.dumps(stages))
    read, score = stages.open_reader(), stages.open_scorer()
    scan = read.source.scan(records_per_shard=records_per_shard, bytes_per_shard=1 << 25)
    return [score(pickle.loads(pickle.dumps(read(shard)))) for shard in scan.shards]

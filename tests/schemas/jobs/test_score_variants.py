"""The spec of score_variants: defaults, rules between fields, and its options."""

import json
import subprocess
import sys

import pytest

from schemas._base import SpecError, build_spec, field_at
from schemas.jobs.score_variants import OPTIONS, TABLE_NAMES, ScoreVariantsSpec
from schemas.tables import VARIANT_SCORES

LEAST = {
    "input": {"path": "in.vcf.gz"},
    "reference": "ref.fa",
    "genes": "genes.gtf",
    "model": "splice-mini",
    "output": "out",
}
PANEL = {"title": "t", "kind": "signed", "truth": "DPSI", "scores": ["s"]}


def build(**more):
    return build_spec(ScoreVariantsSpec, {**LEAST, **more}, where="w")


def refusal(**more):
    with pytest.raises(SpecError) as caught:
        build(**more)
    return str(caught.value)


def test_defaults():
    spec = build()
    assert spec.version == 1
    assert spec.scorer.name == "splice_delta"
    assert spec.execution.executor == "in-process"
    assert spec.execution.records_per_shard is None
    assert spec.execution.bytes_per_shard == 32 * 2**20
    assert spec.max_reject_fraction == 0.05
    assert spec.outputs.vcf
    assert not spec.outputs.bcf


def test_round_trip_through_json():
    spec = build(keep_info=["DPSI"], panels=[PANEL], contig_aliases={"chr1": 1})
    assert build_spec(ScoreVariantsSpec, json.loads(spec.model_dump_json()), where="w") == spec
    assert ScoreVariantsSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("key", ["input", "reference", "output"])
def test_what_must_be_given(key):
    values = {name: value for name, value in LEAST.items() if name != key}
    with pytest.raises(SpecError, match=f"the key '{key}' is missing"):
        build_spec(ScoreVariantsSpec, values, where="w")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"version": 2}, "allowed: 1"),
        ({"max_reject_fraction": 1.5}, "give at most 1"),
        ({"execution": {"address": "h:1"}}, "set execution.executor to ray"),
        ({"execution": {"workers": 0}}, "give at least 1"),
        ({"execution": {"device": "gpu"}}, "allowed: cpu, cuda"),
        ({"model": None}, "the scorer splice_delta needs model"),
        ({"genes": None}, "the scorer splice_delta needs genes"),
        ({"outputs": {"vcf": False, "bcf": True}}, "bcf is made from the scored VCF"),
        ({"outputs": {"spliceai_info": True}, "scorer": {"name": "allele_effect"}}, "needs the scorer splice_delta"),
        ({"output": ""}, "give at least 1"),
        ({"input": {}}, "nothing says what to score: give path (IN), or all_snvs with regions or genes"),
        ({"input": {"regions": ["chr1"]}}, "nothing says what to score"),
        ({"input": {"all_snvs": True}}, "all_snvs needs regions, regions_file or genes"),
        ({"input": {"path": "x.vcf", "all_snvs": True, "regions": ["chr1"]}}, "yet path is 'x.vcf'"),
        ({"input": {"path": "x.vcf", "genes": ["BRCA1"]}}, "genes go with all_snvs alone"),
        (
            {"input": {"all_snvs": True, "genes": ["A"]}, "genes": None, "scorer": {"name": "allele_effect"}},
            "input.genes needs genes: give the annotation",
        ),
        ({"panels": [PANEL]}, "panels use DPSI: add them to keep_info"),
        ({"keep_info": ["DPSI"], "panels": [{**PANEL, "kind": "classes"}]}, "needs both positive and negative"),
        ({"keep_info": ["DPSI"], "panels": [{**PANEL, "positive": ["a"]}]}, "belong to panels of kind classes"),
        ({"keep_info": ["DPSI"], "panels": [{**PANEL, "flip": True}]}, "flip belongs to panels of kind classes"),
        ({"keep_info": ["DPSI"], "panels": [{**PANEL, "scores": []}]}, "give at least 1"),
        (
            {
                "keep_info": ["DPSI"],
                "panels": [{**PANEL, "kind": "classes", "positive": ["a"], "negative": ["b", "a"]}],
            },
            "a cannot be both",
        ),
    ],
)
def test_rules(more, sentence):
    assert sentence in refusal(**more)


@pytest.mark.parametrize("more", [{"regions": ["chr1"]}, {"regions_file": "r.bed"}, {"genes": ["BRCA1", 7]}])
def test_all_snvs_need_no_path(more):
    found = build(input={"all_snvs": True, **more}).input
    assert found.path is None
    assert found.all_snvs


def test_panels_may_group_by_table_columns():
    assert set(VARIANT_SCORES.names) >= TABLE_NAMES
    spec = build(keep_info=["DPSI"], panels=[{**PANEL, "cluster": "gene_id", "where": {"contig": 20}}])
    assert spec.panels[0].where == {"contig": "20"}


def test_every_option_sets_a_documented_key():
    for option in OPTIONS:
        key = tuple(option.key.split("."))
        if key[:2] == ("scorer", "params"):
            assert option.doc
            assert option.kind
            continue
        field = field_at(ScoreVariantsSpec, key)
        assert field is not None, option.key
        assert option.doc or field.description, option.key


def test_flags_are_distinct():
    flags = [flag for option in OPTIONS for flag in option.flags]
    assert len(set(flags)) == len(flags)


def test_every_field_is_documented():
    schema = ScoreVariantsSpec.model_json_schema()
    for section in [schema, *schema["$defs"].values()]:
        for name, value in section["properties"].items():
            assert value.get("description"), name


def test_the_spec_needs_neither_pyarrow_nor_engine():
    code = "import sys, schemas.jobs.score_variants; print({'pyarrow', 'engine', 'yaml', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

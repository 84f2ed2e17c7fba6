"""From a file, options and --set to a spec."""

import pytest

from engine.errors import InputError
from jobs import _spec
from schemas.jobs.score_variants import ScoreVariantsSpec

SPEC = """\
job: score_variants
input:
  path: in.vcf.gz
reference: ref.fa
genes: genes.gtf
model: splice-mini
output: out
"""


@pytest.fixture
def spec_file(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(SPEC)
    return path


def refusal(call):
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def test_jobs_are_the_folder_listing():
    assert "score_variants" in _spec.job_names()
    assert not [name for name in _spec.job_names() if name.startswith("_")]
    assert _spec.job_summary("score_variants") == "Score every variant of a VCF with a deep model."
    assert _spec.check_job("score-variants") == "score_variants"


def test_every_job_has_a_page_with_its_spec_and_options():
    for job in _spec.job_names():
        assert _spec.spec_class(job).model_fields["job"].default == job
        assert _spec.job_options(job)


def test_unknown_job_names_the_nearest():
    assert "did you mean 'score-variants'?" in refusal(lambda: _spec.check_job("score_variant"))


def test_file_to_spec(spec_file):
    job, spec = _spec.build(_spec.read_file(spec_file))
    assert job == "score_variants"
    assert isinstance(spec, ScoreVariantsSpec)
    assert spec.input.path == "in.vcf.gz"


def test_settings_override_the_file(spec_file):
    settings = ["execution.workers=3", "input.regions=[chr1, 2]", "output=017x", "scorer.params.mask=true", "model=m"]
    _, spec = _spec.build(_spec.apply_settings(_spec.read_file(spec_file), settings))
    assert spec.execution.workers == 3
    assert spec.input.regions == ("chr1", "2")
    assert spec.output == "017x"
    assert spec.scorer.params == {"mask": True}
    assert spec.model == "m"


def test_settings_reach_into_lists(spec_file):
    spec_file.write_text(SPEC + "keep_info: [T]\npanels:\n- {title: a, kind: signed, truth: T, scores: [x]}\n")
    source = _spec.read_file(spec_file)
    _, spec = _spec.build(_spec.apply_settings(source, ["panels.0.title=b"]))
    assert spec.panels[0].title == "b"
    assert source.values["panels"][0]["title"] == "a"
    assert "no item '1'" in refusal(lambda: _spec.apply_settings(source, ["panels.1.title=b"]))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("workers", "--set: found 'workers'; write KEY=VALUE"),
        ("=3", "write KEY=VALUE"),
        ("a..b=3", "write KEY=VALUE"),
        ("reference.x=1", "nothing stands below the value 'ref.fa'"),
        ("execution.workers=[1", "--set execution.workers line 1: not YAML"),
        ("execution.workers=017", "is octal to one version"),
        (
            "execution.wrokers=1",
            "s.yaml --set, key 'execution.wrokers': unknown key 'wrokers'; did you mean 'workers'?",
        ),
        ("execution.workers=no", "key 'execution.workers': found 'no'; give a whole number"),
        (
            "scorer.name=splice_dleta",
            "key 'scorer.name': no scorer named 'splice_dleta'; did you mean 'splice_delta'?",
        ),
    ],
)
def test_bad_settings(spec_file, setting, sentence):
    source = _spec.read_file(spec_file)
    assert sentence in refusal(lambda: _spec.build(_spec.apply_settings(source, [setting])))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (SPEC + "outptu: x\n", "s.yaml line 8, key 'outptu': unknown key 'outptu'; did you mean 'output'?"),
        (SPEC.replace("job: score_variants", "job: score_variant"), "did you mean 'score-variants'?"),
        (SPEC.replace("job: score_variants\n", ""), "the key 'job' is missing"),
        (SPEC + "output: again\n", "s.yaml line 8: the key 'output' stands twice, first on line 7"),
        ("- a\n", "a spec is a mapping"),
        ("", "the file is empty"),
        (SPEC + "execution: {workers: !!int 3}\n", "is not allowed"),
    ],
)
def test_bad_files(spec_file, text, sentence):
    spec_file.write_text(text)
    assert sentence in refusal(lambda: _spec.build(_spec.read_file(spec_file)))


def test_files_that_cannot_be_read(tmp_path):
    assert "cannot be read: No such file" in refusal(lambda: _spec.read_file(tmp_path / "absent.yaml"))
    assert "cannot be read: Is a directory" in refusal(lambda: _spec.read_file(tmp_path))
    (tmp_path / "big.yaml").write_bytes(b"#" * 300_000)
    assert "above the cap" in refusal(lambda: _spec.read_file(tmp_path / "big.yaml"))


GIVEN = {"IN": "-", "--reference": "r.fa", "--genes": "g.gtf", "--model": "m", "--output": "o"}


def from_options(**more):
    given = {**GIVEN, **{"--" + name.replace("_", "-"): value for name, value in more.items()}}
    return _spec.build(_spec.from_options("score_variants", given), job="score_variants")[1]


def test_options_left_out_leave_the_defaults():
    spec = from_options(workers=None, mask=False, regions=[], no_vcf=False)
    least = {"input": {"path": "-"}, "reference": "r.fa", "genes": "g.gtf", "model": "m", "output": "o"}
    assert spec == ScoreVariantsSpec.model_validate(least)


@pytest.mark.parametrize(
    ("flag", "typed", "section", "value"),
    [
        ("regions", ["chr1:1-9", "2"], "input.regions", ("chr1:1-9", "2")),
        ("regions_file", "r.bed", "input.regions_file", "r.bed"),
        ("scorer", "allele_effect", "scorer.name", "allele_effect"),
        ("distance", 0, "scorer.params", {"distance": 0}),
        ("mask", True, "scorer.params", {"mask": True}),
        ("exon_sites", True, "scorer.params", {"exon_sites": True}),
        ("reference_psi", "REF_PSI", "scorer.params", {"reference_psi": "REF_PSI"}),
        ("reference_psi", "PSI", "scorer.params", {"reference_psi": "PSI"}),
        ("compatibility", "spliceai-1.3.1", "scorer.params", {"compatibility": "spliceai-1.3.1"}),
        ("all_transcripts", True, "all_transcripts", True),
        ("contig_alias", ["chr1=1", "chrM=MT"], "contig_aliases", {"chr1": "1", "chrM": "MT"}),
        ("keep_info", ["A,B", "C"], "keep_info", ("A", "B", "C")),
        ("max_rejects", 1.0, "max_reject_fraction", 1.0),
        ("spliceai_info", True, "outputs.spliceai_info", True),
        ("bcf", True, "outputs.bcf", True),
        ("vep_tab", True, "outputs.vep_tab", True),
        ("partition_by_contig", True, "outputs.partition_by_contig", True),
        ("no_vcf", True, "outputs.vcf", False),
        ("executor", "ray", "execution.executor", "ray"),
        ("workers", 3, "execution.workers", 3),
        ("device", "cuda", "execution.device", "cuda"),
        ("precision", "bf16", "execution.precision", "bf16"),
        ("micro_batch", 8, "execution.micro_batch", 8),
        ("records_per_shard", 7, "execution.records_per_shard", 7),
    ],
)
def test_each_option_sets_its_key(flag, typed, section, value):
    found = from_options(**{flag: typed})
    for key in section.split("."):
        found = getattr(found, key)
    assert found == value


def test_all_snvs_take_the_place_of_a_file():
    given = {flag: value for flag, value in GIVEN.items() if flag != "IN"}
    given |= {"--all-snvs": True, "--gene": ["A,B", "C"], "--regions": ["chr1"]}
    found = _spec.build(_spec.from_options("score_variants", given), job="score_variants")[1].input
    assert (found.path, found.all_snvs, found.genes, found.regions) == (None, True, ("A", "B", "C"), ("chr1",))


def test_aliases_come_from_file_and_options(tmp_path):
    path = tmp_path / "aliases.tsv"
    path.write_text("# name\treference\nchr1\t1\nchrM\tMT\n")
    spec = from_options(contig_aliases=str(path), contig_alias=["chr2=2"])
    assert spec.contig_aliases == {"chr1": "1", "chrM": "MT", "chr2": "2"}


def test_panels_come_from_a_file(tmp_path):
    path = tmp_path / "panels.yaml"
    path.write_text("- {title: t, kind: classes, truth: C, scores: [s], positive: [1], negative: [0]}\n")
    assert from_options(compare=str(path), keep_info=["C"]).panels[0].positive == ("1",)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"contig_alias": ["chr1"]}, "--contig-alias: found 'chr1'; write NAME=VALUE"),
        ({"contig_aliases": "absent.tsv"}, "--contig-aliases: absent.tsv cannot be read: No such file"),
        ({"workers": 0}, "command line --workers, key 'execution.workers': found 0; give at least 1"),
        ({"executor": "rya"}, "did you mean 'ray'? allowed: in-process, ray"),
        ({"address": "h:1"}, "set execution.executor to ray"),
        ({"all_snvs": True}, "key 'input': all_snvs makes its own variants, yet path is '-': leave one of them out"),
        ({"gene": ["A"]}, "key 'input': genes go with all_snvs alone"),
    ],
)
def test_bad_options(more, sentence):
    assert sentence in refusal(lambda: from_options(**more))

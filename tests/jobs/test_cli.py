"""The command: parsing in this process, endings in this process, and the real thing in a subprocess."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine import __version__
from engine.errors import DataError, InputError, RejectLimitError, SystemFailure
from jobs import cli
from schemas.jobs.score_variants import OPTIONS

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-c", "from jobs.cli import main; main()"]


def command(*words: str, **more) -> subprocess.CompletedProcess[str]:
    settings = {"cwd": ROOT, "capture_output": True, "text": True, "check": False, "stdin": subprocess.DEVNULL}
    return subprocess.run([*COMMAND, *words], **{**settings, **more})


def invoke(*words: str):
    return CliRunner().invoke(cli.app, list(words), env={"COLUMNS": "200"})


class Page:
    """A job page that notes what it was asked."""

    def __init__(self) -> None:
        self.specs: list = []
        self.contexts: list = []

    def run(self, spec, context):
        self.specs.append(spec)
        self.contexts.append(context)
        raise RejectLimitError("9 rows rejected of 10", where="max_reject_fraction", fix="look at rejects/")

    def plan(self, spec, context):
        from engine.io.source import Shard
        from engine.runtime.run import PlanLine

        self.specs.append(spec)
        shard = Shard(0, 0, 9, 5, 0, "chr1", 99, "chr1", 120)
        return [PlanLine(shard, "run", "no part is published yet"), PlanLine(shard, "skip", "its part is published")]


@pytest.fixture
def page(monkeypatch) -> Page:
    made = Page()
    monkeypatch.setattr(cli, "_job_page", lambda job: made)
    return made


LEAST = ("score-variants", "in.vcf", "--reference", "r.fa", "--genes", "g.gtf", "--model", "m", "-o", "out")


def test_the_verb_reaches_the_page_as_a_spec(page):
    words = ("-r", "chr1:1-9,chr2", "-r", "3", "-R", "x.bed", "--mask", "--distance", "60", "--contig-alias", "chr1=1")
    done = invoke(*LEAST, *words, "-j", "2", "--no-vcf", "--set", "execution.micro_batch=9", "--force", "--debug")
    assert done.exit_code == 3
    (spec,) = page.specs
    assert spec.input.regions == ("chr1:1-9,chr2", "3")
    assert spec.scorer.params == {"mask": True, "distance": 60}
    assert spec.contig_aliases == {"chr1": "1"}
    assert spec.execution.workers == 2
    assert spec.execution.micro_batch == 9
    assert not spec.outputs.vcf
    (context,) = page.contexts
    assert (context.force, context.debug, context.progress) == (True, True, "auto")


def test_a_spec_file_reaches_the_page(page, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("job: score-variants\ninput: {path: in.vcf}\nreference: r\ngenes: g\nmodel: m\noutput: o\n")
    done = invoke("run", str(path), "--set", "execution.workers=2", "--address", "head:6379", "--progress", "none")
    assert done.exit_code == 3
    assert page.specs[0].execution.executor == "ray"
    assert page.specs[0].execution.address == "head:6379"
    assert page.specs[0].execution.workers == 2
    assert page.contexts[0].progress == "none"


def test_plan_says_why(page):
    done = invoke(*LEAST, "--plan")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "shard 0: run, no part is published yet (5 records from chr1:100)",
        "shard 0: skip, its part is published (5 records from chr1:100)",
        "1 of 2 shards to run",
    ]
    lines = [json.loads(line) for line in invoke(*LEAST, "--plan", "--json").stdout.splitlines()]
    assert [line["action"] for line in lines] == ["run", "skip"]
    assert not page.contexts


def test_every_option_of_the_job_is_on_its_help():
    text = invoke("score-variants", "--help").stdout
    for option in OPTIONS:
        assert option.flags[0] in text
    assert "[default: splice_delta]" in text
    assert "in-process|ray" in text


def test_jobs_version_schema_models():
    assert invoke("version").stdout == f"{__version__}\n"
    assert "score-variants" in invoke("jobs").stdout
    assert "score-variants" in json.loads(invoke("jobs", "--json").stdout)
    assert json.loads(invoke("schema", "score-variants").stdout)["additionalProperties"] is False
    assert isinstance(json.loads(invoke("models", "--json").stdout), list)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InputError("w", where="f", fix="x"), 2, "replisome: f: w; x"),
        (DataError("w"), 2, "replisome: w"),
        (RejectLimitError("w"), 3, "replisome: w"),
        (SystemFailure("w"), 4, "replisome: w"),
        (KeyboardInterrupt(), 130, "replisome: interrupted; finished shards are kept"),
        (cli.Terminated(), 143, "replisome: terminated; finished shards are kept"),
        (MemoryError(), 4, "replisome: out of memory; use fewer"),
        (ZeroDivisionError("a\nb"), 4, "replisome: unexpected ZeroDivisionError: a b; run again with --debug"),
        (BrokenPipeError(), 4, "replisome: unexpected BrokenPipeError: no message; run again"),
    ],
)
def test_every_ending_is_one_sentence_and_a_code(error, code, sentence, capsys):
    def work() -> int:
        raise error

    assert cli.exit_code_of(work) == code
    text = capsys.readouterr().err
    assert text.startswith(sentence)
    assert text.count("\n") == 1


def test_debug_adds_the_trace(capsys):
    assert cli.exit_code_of(lambda: 1 // 0, debug=True) == 4
    assert "Traceback" in capsys.readouterr().err


def test_usage_errors_end_with_2_and_name_the_nearest():
    done = command("scor-variants")
    assert done.returncode == 2
    assert "did you mean 'score-variants'?" in done.stderr
    assert command("score-variants").returncode == 2
    assert "No such option" in command(*LEAST, "--wokers", "2").stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run", "absent.yaml"), "replisome: absent.yaml: cannot be read: No such file or directory; check the path"),
        ((*LEAST, "--executor", "rya"), "did you mean 'ray'? allowed: in-process, ray"),
        ((*LEAST, "--scorer", "splice_dleta"), "did you mean 'splice_delta'?"),
        (("schema", "x"), "known: "),
        (("models", "no-such-model"), "no model of this name"),
        (("verify", "no-such-folder"), "no-such-folder"),
    ],
)
def test_wrong_input_is_one_sentence_without_a_trace(words, sentence, tmp_path):
    done = command(*words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_is_plain_and_complete():
    done = command("--help")
    assert done.returncode == 0
    for verb in ("score-variants", "run", "plan", "verify", "schema", "models", "jobs", "version"):
        assert verb in done.stdout
    assert "esearch use" in done.stdout


def test_a_reader_that_leaves_is_no_drama():
    read, write = os.pipe()
    os.close(read)
    done = command("schema", "score-variants", capture_output=False, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == ""


WAITING = """
import sys, time
from jobs import cli
def work():
    print("ready", flush=True)
    time.sleep(60)
cli._spec.job_names = lambda: []
cli.app.command("wait")(lambda: cli._finish(work))
sys.argv = ["replisome", "wait"]
cli.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_with_a_sentence_on_resuming(number, code):
    started = subprocess.Popen([sys.executable, "-c", WAITING], cwd=ROOT, stdout=-1, stderr=-1, text=True)
    with started:
        assert started.stdout.readline() == "ready\n"
        started.send_signal(number)
        _, text = started.communicate(timeout=60)
    assert started.returncode == code
    assert "run the same command again to go on" in text
    assert text.count("\n") == 1


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    from tests.toys.genome import make_genome, random_records, write_vcf

    folder = tmp_path_factory.mktemp("toy")
    made = make_genome(folder)
    write_vcf(folder / "in.vcf.gz", random_records(made, 60, seed=3), made)
    return made, folder


def toy_words(toy, out: Path, *, variants: str = "in.vcf.gz") -> tuple[str, ...]:
    made, folder = toy
    words = ("score-variants", str(folder / variants), "--reference", str(made.fasta), "--scorer", "gc_change")
    return (*words, "-o", str(out), "--workers", "1", "--records-per-shard", "25", "--progress", "none")


def test_a_run_from_start_to_verify(toy, tmp_path):
    out = tmp_path / "out"
    first = command(*toy_words(toy, out))
    assert (first.returncode, first.stderr) == (0, "")
    assert f"{out}: finished; 60 records; rows: 60 scored, 0 not applicable, 0 rejected" in first.stdout
    for line in first.stdout.splitlines()[1:]:
        assert Path(line.strip()).exists()
    again = command(*toy_words(toy, out))
    assert again.returncode == 0
    assert "finished before, nothing to do" in again.stdout
    assert "0 of 3 shards to run" in command(*toy_words(toy, out), "--plan").stdout
    checked = command("verify", str(out))
    assert checked.returncode == 0
    assert "all as committed" in checked.stdout
    part = next((out / "data").rglob("*.parquet"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    damaged = command("verify", str(out), "--json")
    assert damaged.returncode == 2
    assert [problem["path"] for problem in json.loads(damaged.stdout)["problems"]] == [str(part.relative_to(out))]


def test_a_spec_file_gives_what_the_verb_gives(toy, tmp_path):
    made, folder = toy
    assert command(*toy_words(toy, tmp_path / "a")).returncode == 0
    spec = {
        "job": "score_variants",
        "input": {"path": str(folder / "in.vcf.gz")},
        "reference": str(made.fasta),
        "scorer": {"name": "gc_change"},
        "output": "replaced below",
        "execution": {"records_per_shard": 25},
    }
    (tmp_path / "s.yaml").write_text(json.dumps(spec))
    done = command("run", str(tmp_path / "s.yaml"), "--set", f"output={tmp_path / 'b'}", "--progress", "json")
    assert done.returncode == 0
    assert json.loads(done.stderr.splitlines()[-1])["event"] == "done"
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()


def test_another_question_to_the_same_folder_is_refused(toy, tmp_path):
    out = tmp_path / "out"
    assert command(*toy_words(toy, out)).returncode == 0
    other = command(*toy_words(toy, out), "-r", "chr2")
    assert other.returncode == 2
    assert "this folder holds a run that computes something else" in other.stderr
    assert command(*toy_words(toy, out), "-r", "chr2", "--force").returncode == 0


def test_too_many_rejects_have_their_own_exit_code(toy, tmp_path):
    from tests.toys.genome import bad_records, write_vcf

    made, folder = toy
    write_vcf(folder / "bad.vcf", bad_records(made), made)
    words = toy_words(toy, tmp_path / "out", variants="bad.vcf")
    refused = command(*words, "--max-rejects", "0.01")
    assert refused.returncode == 3
    assert "more than the limit of 1.00%" in refused.stderr
    assert command(*words, "--max-rejects", "1").returncode == 0


def test_variants_from_standard_input(toy, tmp_path):
    _, folder = toy
    words = list(toy_words(toy, tmp_path / "out"))
    words[1] = "-"
    with (folder / "in.vcf.gz").open("rb") as stream:
        done = command(*words, stdin=stream)
    assert (done.returncode, done.stderr) == (0, "")
    assert "60 records" in done.stdout


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({1: "absent.vcf"}, "absent.vcf"),
        ({3: "absent.fa"}, "absent.fa"),
        ({5: "splice_delta"}, "needs model"),
    ],
)
def test_wrong_files_are_one_sentence(toy, tmp_path, change, sentence):
    words = list(toy_words(toy, tmp_path / "out"))
    for index, word in change.items():
        words[index] = word
    done = command(*words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1

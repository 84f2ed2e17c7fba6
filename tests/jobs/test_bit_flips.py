"""One hundred single-bit flips over each kind of file that score-variants leaves, results and indexes included."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.toys.bit_flips import check_kind, kinds
from tests.toys.runs import assert_same_results
from tests.toys.variant_runs import assert_one_sentence, replisome_here

KINDS = [
    "by_contig",
    "data",
    "files.parquet",
    "manifest.json",
    "plan.parquet",
    "receipts",
    "rejects",
    "report.html",
    "report.json",
    "run.json",
    "run.log",
    "scores.bcf",
    "scores.bcf.csi",
    "scores.vcf.gz",
    "scores.vcf.gz.tbi",
    "scores.vep.tsv.gz",
    "scores.vep.tsv.gz.tbi",
    "vcf",
]


@pytest.fixture(scope="module")
def output(spliced, tmp_path_factory):
    return Path(shutil.copytree(spliced, tmp_path_factory.mktemp("flips") / "out"))


def test_the_matrix_below_has_every_kind_of_file(output):
    assert sorted(kinds(output)) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bits_are_seen_and_never_read_as_data(output, kind):
    check_kind(output, kinds(output)[kind], seed=KINDS.index(kind))


@pytest.mark.parametrize("segments", ["kept", "lost"])
def test_bits_flipped_while_a_run_is_stopped_reach_no_result(workspace, calm, tmp_path, segments):
    """Resumed, it names the damaged file, or makes what a calm run makes; with its receipts lost it reads footers."""
    stopped, output = tmp_path / "stopped", tmp_path / "out"
    words = workspace.arguments(output)
    assert replisome_here(*workspace.arguments(stopped), fault="enospc@write#13").returncode == 4
    for path in stopped.glob("receipts/*" if segments == "lost" else "nothing"):
        path.unlink()
    chance = random.Random(1)
    names = [path.relative_to(stopped) for path in sorted(stopped.rglob("*")) if path.is_file()]
    for name in names * 3:
        shutil.copytree(stopped, output)
        data = bytearray((output / name).read_bytes())
        bit = chance.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        (output / name).write_bytes(data)
        done = replisome_here(*words)
        if done.returncode == 0:
            assert_same_results(output, calm)
        else:
            assert done.returncode == 2
            assert f"{output}/{name}: " in done.stderr, f"bit {bit} of {name}"
        shutil.rmtree(output)


@pytest.mark.parametrize(
    "name", ["data/000/part-000001.parquet", "vcf/000/part-000001.gz", "rejects/000/part-000000.parquet"]
)
def test_the_sentence_on_damage_says_what_helps(workspace, calm, tmp_path, name):
    output = tmp_path / "out"
    words = workspace.arguments(output)
    assert replisome_here(*words, fault="enospc@write#13").returncode == 4
    data = bytearray((output / name).read_bytes())
    data[len(data) // 2] ^= 1
    (output / name).write_bytes(data)
    part = f"data/000/{name.rpartition('/')[2].partition('.')[0]}.parquet"
    assert_one_sentence(replisome_here(*words), 2, f"delete (it|{part}) and run again")
    (output / part).unlink()
    assert replisome_here(*words).returncode == 0
    assert_same_results(output, calm)

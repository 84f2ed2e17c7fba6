"""`verify` over every kind of file: flipped bits, missing files, cut files, foreign files, unfinished runs."""

from __future__ import annotations

import pytest

from engine.errors import InputError, SystemFailure
from engine.runtime import layout
from engine.runtime.run import Execution
from engine.runtime.verify import verify
from tests.toys.bit_flips import check_kind, kinds
from tests.toys.number_job import run_numbers

ONE = Execution(workers=1)
ALL_KINDS = {
    "run.json",
    "run.log",
    "plan.parquet",
    "data",
    "rejects",
    "vcf",
    "receipts",
    "squares.gz",
    "files.parquet",
    "report.html",
    "report.json",
    "manifest.json",
}


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    path = tmp_path_factory.mktemp("numbers") / "numbers.txt"
    path.write_text("".join(f"{n}\n" for n in range(-15, 30)))
    return path


@pytest.fixture(scope="module")
def output(numbers, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "out"
    run_numbers(str(numbers), str(output), execution=ONE)
    return output


def test_the_matrix_below_has_every_kind_of_file(output):
    assert set(kinds(output)) == ALL_KINDS


@pytest.mark.parametrize("kind", sorted(ALL_KINDS))
def test_flipped_bits_are_seen_and_never_read_as_data(output, kind):
    check_kind(output, kinds(output)[kind], seed=sorted(ALL_KINDS).index(kind))


@pytest.mark.parametrize("kind", sorted(ALL_KINDS - {"manifest.json"}))
def test_missing_and_cut_files_are_named(output, kind):
    name = kinds(output)[kind][-1]
    path = output / name
    data = path.read_bytes()
    path.unlink()
    missing = verify(str(output)).problems
    path.write_bytes(data[:-1])
    cut = verify(str(output)).problems
    path.write_bytes(data)
    assert name in [problem.path for problem in missing]
    assert name in [problem.path for problem in cut]
    assert verify(str(output)).problems == []


def test_foreign_files_are_listed(output):
    (output / "notes.txt").write_text("mine")
    assert verify(str(output)).unlisted == ["notes.txt"]
    (output / "notes.txt").unlink()


def test_an_unfinished_run_is_checked_as_far_as_it_came(numbers, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(SystemFailure):
        run_numbers(str(numbers), str(output), execution=ONE, fail_on=29)
    assert not verify(str(output)).finished
    assert verify(str(output)).problems == []
    path = output / layout.data_part(0)
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    assert [problem.path for problem in verify(str(output)).problems] == [layout.data_part(0)]


def test_no_run_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="there is no run here; give the folder that was named with -o"):
        verify(str(tmp_path))

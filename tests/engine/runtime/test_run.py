"""The run protocol on a job that can be counted by hand: any worker count, restarts, refusals, accounting."""

from __future__ import annotations

import json
import os

import pyarrow.parquet as pq
import pytest

from engine.errors import DataError, InputError, RejectLimitError, SystemFailure
from engine.runtime import layout
from engine.runtime.run import Execution, RunContext, open_run
from engine.runtime.verify import verify
from tests.toys.number_job import NumberSource, run_numbers
from tests.toys.runs import assert_same_results, result_bytes

ONE = Execution(workers=1)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    path = tmp_path_factory.mktemp("numbers") / "numbers.txt"
    path.write_text("".join(f"{n}\n" for n in range(-5, 90)))
    return path


@pytest.fixture(scope="module")
def calm(numbers, tmp_path_factory):
    output = tmp_path_factory.mktemp("calm") / "out"
    run_numbers(str(numbers), str(output), execution=ONE)
    return output


def test_every_record_is_accounted_for(calm):
    manifest = json.loads((calm / "manifest.json").read_text())
    assert manifest["num_records"] == 95
    assert manifest["num_shards"] == 10
    assert manifest["totals"]["states"] == {"scored": 81, "not_applicable": 9, "rejected": 5}
    assert manifest["totals"]["reasons"] == {"negative": 5}
    rows = pq.read_table(calm / "data").num_rows
    assert rows == 95
    assert sorted(path.name for path in (calm / "rejects").rglob("*.parquet")) == ["part-000000.parquet"]


def test_the_listing_is_exactly_what_lies_there(calm):
    listed = set(pq.read_table(calm / "files.parquet")["path"].to_pylist())
    assert set(result_bytes(calm)) == listed | {"manifest.json", "files.parquet"}


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bytes(numbers, calm, tmp_path, workers):
    run_numbers(str(numbers), str(tmp_path / "out"), execution=Execution(workers=workers))
    assert_same_results(tmp_path / "out", calm)


def test_a_finished_run_does_nothing(numbers, calm):
    before = {path: path.stat().st_mtime_ns for path in calm.rglob("*") if path.is_file()}
    outcome = run_numbers(str(numbers), str(calm), execution=ONE)
    assert outcome.already_finished
    assert {path: path.stat().st_mtime_ns for path in calm.rglob("*") if path.is_file()} == before


def test_another_key_is_refused_and_named(numbers, calm):
    with pytest.raises(InputError, match="computes something else: power was 2, now 3; choose another output"):
        run_numbers(str(numbers), str(calm), execution=ONE, power=3)


def test_of_long_settings_the_part_that_differs_is_named(numbers, tmp_path):
    def freeze(value, text):
        with open_run(str(tmp_path / "out"), job="numbers", context=RunContext(progress="none")) as run:
            run.plan(NumberSource(str(numbers)), records_per_shard=10, bytes_per_shard=1 << 20)
            run.freeze({"params": {"window": 31, "many": {f"key{n}": 30 for n in range(40)} | value}, "text": text}, {})

    freeze({}, "a" * 90 + "x" + "b" * 90)
    words = r"params\.many\.key30 was 30, now 31; text was \.\.\.a+xb+\.\.\., now \.\.\.a+yb+\.\.\.; choose"
    with pytest.raises(InputError, match=words):
        freeze({"key30": 31}, "a" * 90 + "y" + "b" * 90)


def test_key_and_choices_are_taken_up_as_they_were(numbers, tmp_path):
    """JSON has no tuples: a key that holds one must be known again, and what a driver chose stands."""
    for turn in range(2):
        with open_run(str(tmp_path / "out"), job="numbers", context=RunContext(progress="none")) as run:
            run.plan(NumberSource(str(numbers)), records_per_shard=7, bytes_per_shard=1 << 20)
            assert run.choices == ({"taken": [1, 2]} if turn else {})
            run.freeze({"params": {"channels": ("a", "b")}}, {}, choices={"taken": [1, 2 + turn]})


def test_a_setting_under_a_name_of_the_run_is_refused(numbers, tmp_path):
    """The run's own entry would take its place, and two runs that differ in it would be one."""
    with open_run(str(tmp_path / "out"), job="numbers", context=RunContext(progress="none")) as run:
        run.plan(NumberSource(str(numbers)), records_per_shard=7, bytes_per_shard=1 << 20)
        with pytest.raises(ValueError, match="cannot hold format, job: the run sets it"):
            run.freeze({"format": "GT", "job": 1, "power": 2}, {})


def test_changed_input_is_refused(numbers, tmp_path):
    own = tmp_path / "numbers.txt"
    own.write_text(numbers.read_text())
    run_numbers(str(own), str(tmp_path / "out"), execution=ONE)
    own.write_text("1\n2\n")
    with pytest.raises(InputError, match=r"input was [0-9a-f]"):
        run_numbers(str(own), str(tmp_path / "out"), execution=ONE)
    own.write_text(numbers.read_text())
    assert run_numbers(str(own), str(tmp_path / "out"), execution=ONE).already_finished


def test_force_keeps_the_former_manifest(numbers, calm, tmp_path):
    output = tmp_path / "out"
    run_numbers(str(numbers), str(output), execution=ONE)
    former = (output / "manifest.json").read_bytes()
    (output / "thesis.txt").write_text("not ours")
    run_numbers(str(numbers), str(output), execution=ONE, power=3, force=True)
    assert (output / "former" / "manifest-001.json").read_bytes() == former
    assert json.loads((output / "manifest.json").read_text())["facts"] == {"power": 3}
    assert (output / "thesis.txt").read_text() == "not ours"


def test_too_many_rejects_fail_and_can_be_resumed(numbers, calm, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(RejectLimitError, match=r"5 rows rejected of 95 records.*limit of 4.00% \(negative 5\)"):
        run_numbers(str(numbers), str(output), execution=ONE, max_reject_fraction=0.04)
    assert not (output / "manifest.json").exists()
    with pytest.raises(RejectLimitError):
        run_numbers(str(numbers), str(output), execution=ONE, max_reject_fraction=0.04)
    run_numbers(str(numbers), str(output), execution=ONE, max_reject_fraction=0.06)
    assert_same_results(output, calm)


def test_an_unforeseen_error_names_the_shard_and_keeps_its_trace(numbers, calm, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(SystemFailure, match="shard 4: unforeseen ValueError: cannot square 42") as caught:
        run_numbers(str(numbers), str(output), execution=ONE, fail_on=42)
    assert "_score" in "".join(caught.value.__notes__)
    run_numbers(str(numbers), str(output), execution=ONE)
    assert_same_results(output, calm)


def test_empty_input_is_a_run_without_shards(tmp_path):
    (tmp_path / "none.txt").write_text("")
    outcome = run_numbers(str(tmp_path / "none.txt"), str(tmp_path / "out"), execution=ONE)
    assert outcome.totals.shards == 0
    assert verify(str(tmp_path / "out")).problems == []


def test_lost_segments_are_made_good_from_the_footers(numbers, calm, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(SystemFailure):
        run_numbers(str(numbers), str(output), execution=ONE, fail_on=80)
    segments = list((output / layout.RECEIPTS).iterdir())
    assert segments
    segments[0].write_bytes(b"torn")
    parts = {path: path.stat().st_mtime_ns for path in (output / "data").rglob("*.parquet")}
    run_numbers(str(numbers), str(output), execution=ONE)
    assert all(path.stat().st_mtime_ns == time for path, time in parts.items()), "finished shards were run again"
    assert_same_results(output, calm)


def test_a_part_deleted_behind_our_back_is_made_again(numbers, calm, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(SystemFailure):
        run_numbers(str(numbers), str(output), execution=ONE, fail_on=80)
    (output / layout.data_part(1)).unlink()
    run_numbers(str(numbers), str(output), execution=ONE)
    assert_same_results(output, calm)


def test_outputs_depend_on_no_path(numbers, calm, tmp_path):
    """The same numbers under another name, in another folder, into another output."""
    other = tmp_path / "elsewhere" / "renamed.txt"
    other.parent.mkdir()
    other.write_text(numbers.read_text())
    run_numbers(str(other), str(tmp_path / "out"), execution=ONE)
    assert_same_results(tmp_path / "out", calm)


def test_force_that_fails_its_checks_destroys_nothing(numbers, calm, tmp_path):
    output = tmp_path / "out"
    run_numbers(str(numbers), str(output), execution=ONE)
    before = result_bytes(output)
    with pytest.raises(FileNotFoundError):
        run_numbers(str(tmp_path / "no such input"), str(output), execution=ONE, force=True)
    assert result_bytes(output) == before


@pytest.mark.parametrize("force", [False, True])
def test_somebody_elses_files_are_never_overwritten(numbers, tmp_path, force):
    output = tmp_path / "out"
    output.mkdir()
    (output / "report.html").write_text("mine")
    with pytest.raises(
        InputError, match=r"this folder is no run of ours and already holds report.html; choose another"
    ):
        run_numbers(str(numbers), str(output), execution=ONE, force=force)
    assert (output / "report.html").read_text() == "mine"


def test_a_finished_run_whose_results_are_gone_does_not_say_finished(numbers, tmp_path):
    output = tmp_path / "out"
    run_numbers(str(numbers), str(output), execution=ONE)
    (output / "squares.gz").unlink()
    with pytest.raises(DataError, match=r"squares.gz of this finished run is missing or cut; restore it"):
        run_numbers(str(numbers), str(output), execution=ONE)


def test_parts_without_their_key_are_refused(numbers, tmp_path):
    """As after a kill in the middle of --force: parts of another run must never be taken for this one's."""
    output = tmp_path / "out"
    with pytest.raises(SystemFailure):
        run_numbers(str(numbers), str(output), execution=ONE, fail_on=80)
    (output / layout.RUN).unlink()
    with pytest.raises(InputError, match=r"run.json is missing, and with it what the \d+ parts here are of"):
        run_numbers(str(numbers), str(output), execution=ONE, power=3)
    run_numbers(str(numbers), str(output), execution=ONE, power=3, force=True)
    assert json.loads((output / "manifest.json").read_text())["facts"] == {"power": 3}


def test_other_files_among_the_parts_do_no_harm(numbers, calm, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(SystemFailure):
        run_numbers(str(numbers), str(output), execution=ONE, fail_on=80)
    (output / "data" / ".DS_Store").write_text("x")
    (output / "receipts" / "notes.txt").write_text("x")
    assert run_numbers(str(numbers), str(output), execution=ONE).totals.records_in == 95


def test_a_copy_with_the_old_times_is_compared_again(numbers, tmp_path):
    own = tmp_path / "numbers.txt"
    own.write_text(numbers.read_text())
    with pytest.raises(SystemFailure):
        run_numbers(str(own), str(tmp_path / "out"), execution=ONE, fail_on=80)
    times = own.stat()
    other = tmp_path / "other.txt"
    other.write_text(numbers.read_text().replace("7", "8"))
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(own)
    assert own.stat().st_size == times.st_size
    with pytest.raises(InputError, match="computes something else: input was"):
        run_numbers(str(own), str(tmp_path / "out"), execution=ONE)

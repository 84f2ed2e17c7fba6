"""The job predict: as a user runs it, by any number of workers, killed and gone on with, over odd rows."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from engine.encoders.one_hot import OneHot, OneHotParams
from engine.models._folder import ModelCard, load_members, save_model_folder
from engine.models._info import open_model
from engine.models.string_kernel import StringKernel, StringKernelParams
from engine.runtime import layout
from engine.runtime.run import RunContext
from engine.storage.store import open_store
from jobs import predict
from schemas.jobs.predict import PredictSpec
from tests.toys.models import base_counter, count_bases
from tests.toys.pages import Page
from tests.toys.runs import SIDECARS, assert_same_results, result_bytes
from tests.toys.sequence_runs import ingested, sequence_model
from tests.toys.sequences import motif_rows, row
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

torch.set_num_threads(1)

ROWS = [*motif_rows(60), row(60, "ACGTAC!!GT"), row(61, "ACG"), row(62, "ACGTNACGTACGTTTGACA"), *motif_rows(20, seed=5)]


def rows():
    return [{**one, "record": record, "id": f"r{record}"} for record, one in enumerate(ROWS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("predict")
    ingested(place, rows())
    sequence_model(place / "model", members=2)
    return place


def words(folder: Path, output: Path, *more: str, model: str = "model") -> list[str]:
    given = ["predict", str(folder / "set"), "--model", str(folder / model), "-o", str(output)]
    return [*given, "--records-per-shard", "12", "--progress", "none", *more]


@pytest.fixture(scope="module")
def calm(folder, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("calm") / "out"
    done = replisome_here(*words(folder, output, "-j", "1"))
    assert done.returncode == 0, done.stderr
    assert "83 records; rows: 82 scored, 1 not applicable, 0 rejected" in done.stdout
    return output


def table(output: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted((output / "data").rglob("*.parquet"))])


def judge(folder: Path, text: str) -> np.ndarray:
    """One sequence alone through every member, averaged."""
    members = load_members(open_model(folder / "model"))
    encoder = OneHot(OneHotParams())
    x = encoder.tensor(torch.from_numpy(encoder.encode(text))[None])
    with torch.no_grad():
        return np.mean([member(x)["class"][0].numpy() for member in members], axis=0)


def test_every_record_has_its_row_and_the_models_answer(folder, calm):
    found = table(calm)
    assert found["record"].to_list() == list(range(len(ROWS)))
    assert found["id"].to_list() == [f"r{record}" for record in range(len(ROWS))]
    expected = np.array([judge(folder, one["sequence"]) for one in ROWS if "!" not in one["sequence"]])
    scored = found.filter(pl.col("state") == "scored")
    np.testing.assert_allclose(scored.select("class_none", "class_site").to_numpy(), expected, atol=2e-6)
    assert scored["class_predicted"].to_list() == [("none", "site")[one] for one in expected.argmax(axis=1)]
    np.testing.assert_allclose(scored["class_probability"].to_numpy(), expected.max(axis=1), atol=2e-6)
    (odd,) = found.filter(pl.col("state") != "scored").to_dicts()
    assert (odd["record"], odd["state"], odd["reason"]) == (60, "not_applicable", "not_kept")
    assert odd["class_none"] is odd["class_predicted"] is None
    assert len(set(map(tuple, expected.round(6)))) > 50, "the toy tells sequences apart"


def test_the_run_verifies_and_is_left_alone(folder, calm):
    assert replisome_here("verify", str(calm)).returncode == 0
    again = replisome_here(*words(folder, calm))
    assert "finished before, nothing to do" in again.stdout
    manifest = json.loads((calm / "manifest.json").read_text())
    assert manifest["facts"]["model_digest"] == open_model(folder / "model").digest
    assert manifest["facts"]["sequences_digest"] == json.loads((folder / "set/manifest.json").read_text())["digest"]


def test_two_workers_give_the_same_bytes(folder, calm, tmp_path):
    done = replisome(*words(folder, tmp_path / "out", "-j", "2"))
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.ray
def test_ray_gives_the_same_bytes(ray_cluster, folder, calm, tmp_path):
    spec = PredictSpec.model_validate(
        {
            "sequences": f"run:{folder / 'set'}",
            "model": str(folder / "model"),
            "output": str(tmp_path / "out"),
            "execution": {"executor": "ray", "workers": 2, "records_per_shard": 12},
        }
    )
    predict.run(spec, RunContext(progress="none"))
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.parametrize("fault", ["kill@mid-part#2", "kill@between-parts#3", "kill@before-manifest"])
def test_a_killed_driver_loses_nothing(folder, calm, tmp_path, fault):
    killed = replisome(*words(folder, tmp_path / "out", "-j", "1"), fault=fault.replace("kill@mid", "kill-parent@mid"))
    assert killed.returncode == -signal.SIGKILL
    again = replisome_here(*words(folder, tmp_path / "out"))
    assert again.returncode == 0, again.stderr
    assert_same_results(tmp_path / "out", calm)


def test_plan_says_what_would_run(folder, calm, tmp_path):
    found = replisome_here(*words(folder, tmp_path / "out", "--plan"))
    # Shards end where the parts of the set end: 32 rows are 12, 12 and 8.
    assert "8 of 8 shards to run" in found.stdout
    assert "shard 2: run, no part is published yet (8 records" in found.stdout
    assert not (tmp_path / "out" / "run.json").exists()
    assert "0 of 8 shards to run" in replisome_here(*words(folder, calm, "--plan")).stdout


def test_letters_cut_shards_too(folder, tmp_path):
    found = replisome_here(*words(folder, tmp_path / "out", "--plan", "--set", "execution.letters_per_shard=100"))
    assert "shard 1: run, no part is published yet (" in found.stdout
    shards = int(found.stdout.split(" of ")[-1].split(" shards")[0])
    assert shards > 20


def test_positions_are_lists_with_their_offset(folder, tmp_path):
    base_counter(tmp_path / "counter", width=5)
    said = words(folder, tmp_path / "out", "--max-rejects", "1")
    said[said.index("--model") + 1] = str(tmp_path / "counter")
    done = replisome_here(*said)
    assert done.returncode == 0, done.stderr
    found = table(tmp_path / "out")
    for one, text in zip(found.to_dicts(), (one["sequence"] for one in ROWS), strict=True):
        if one["state"] == "scored":
            counts = count_bases(text, 5)
            assert [one[f"count_{base}"] for base in "ACGT"] == counts.tolist()
            assert len(one["count_A"]) == len(text) - 4
    short = found.row(61, named=True)
    assert (short["state"], short["reason"], short["count_A"]) == ("rejected", "too_short", None)
    (reject,) = pl.concat(
        [pl.read_parquet(path) for path in (tmp_path / "out" / "rejects").rglob("*.parquet")]
    ).to_dicts()
    assert reject["sentence"] == "the sequence has 3 letters, the model takes 5 or more"
    assert reject["text"] == "r61"


def test_too_many_rejects_end_with_exit_code_3(folder, tmp_path):
    base_counter(tmp_path / "counter", width=31)
    said = words(folder, tmp_path / "out")
    said[said.index("--model") + 1] = str(tmp_path / "counter")
    assert_one_sentence(replisome_here(*said), 3, "rows rejected of 83 records, more than the limit of 5.00%")


@pytest.mark.parametrize("architecture", ["sequence_cnn", "recurrent", "transformer"])
def test_padding_changes_nothing_but_rounding(folder, tmp_path, architecture):
    """In one shard sequences of many lengths share micro-batches; alone each is padded by nothing."""
    sequence_model(tmp_path / "model", architecture=architecture, pool="attention")
    for batch in ("64", "1"):
        said = words(folder, tmp_path / batch, "--micro-batch", batch)
        said[said.index("--model") + 1] = str(tmp_path / "model")
        assert replisome_here(*said).returncode == 0
    one, other = table(tmp_path / "64"), table(tmp_path / "1")
    np.testing.assert_allclose(one["class_site"].to_numpy(), other["class_site"].to_numpy(), atol=1e-5)
    assert one.select("record", "state").equals(other.select("record", "state"))


def test_sigmoid_and_identity_heads(folder, tmp_path):
    for kind in ("labels", "value"):
        sequence_model(tmp_path / kind, kind)
        said = words(folder, tmp_path / f"out-{kind}")
        said[said.index("--model") + 1] = str(tmp_path / kind)
        assert replisome_here(*said).returncode == 0
    labels = table(tmp_path / "out-labels").filter(pl.col("state") == "scored").to_dicts()
    assert all(one["labels_predicted"] == [n for n in "ac" if one[f"labels_{n}"] > 0.5] for one in labels)
    assert "value" in table(tmp_path / "out-value").columns


def test_both_strands_average(folder, calm, tmp_path):
    done = replisome_here(*words(folder, tmp_path / "out", "--both-strands"))
    assert done.returncode == 0, done.stderr
    other = str.maketrans("ACGTN", "TGCAN")
    text = ROWS[3]["sequence"]
    expected = (judge(folder, text) + judge(folder, text[::-1].translate(other))) / 2
    found = table(tmp_path / "out").row(3, named=True)
    assert [found["class_none"], found["class_site"]] == pytest.approx(expected.tolist(), abs=2e-6)
    assert found["class_site"] != table(calm)["class_site"][3]


def test_a_sequence_longer_than_the_network_is_rejected(folder, tmp_path):
    sequence_model(tmp_path / "model", pool="place", length=36)
    said = words(folder, tmp_path / "out", "--max-rejects", "1")
    said[said.index("--model") + 1] = str(tmp_path / "model")
    assert replisome_here(*said).returncode == 0
    found = table(tmp_path / "out")
    lengths, reasons = found["length"].to_list(), found["reason"].to_list()
    kept = [(length, reason) for length, reason in zip(lengths, reasons, strict=True) if reason != "not_kept"]
    assert all((reason == "too_long") == (length > 36) for length, reason in kept)
    assert any(reason for _, reason in kept)


def test_a_sequence_shorter_than_an_aligned_model_knows_is_rejected(folder, tmp_path):
    """It would be compared at the wrong places, and answered with confidence."""
    params = StringKernelParams(outputs=("a", "b"), activation="softmax", length=64, shortest=30, centres=3)
    model = StringKernel(params)
    model.set_examples(torch.nn.functional.one_hot(torch.arange(3 * 64).view(3, 64) % 4, 4).transpose(1, 2).float())
    encoder = {"name": "one_hot", "params": {}}
    card = ModelCard(name="toy", version="1", licence="Apache-2.0", text="# A toy", encoder=encoder)
    save_model_folder(tmp_path / "model", [model], architecture="string_kernel", card=card)
    said = words(folder, tmp_path / "out", "--max-rejects", "1")
    said[said.index("--model") + 1] = str(tmp_path / "model")
    done = replisome_here(*said)
    assert done.returncode == 0, done.stderr
    found = table(tmp_path / "out")
    pairs = list(zip(found["length"].to_list(), found["reason"].to_list(), strict=True))
    assert all((reason == "too_short") == (length < 30) for length, reason in pairs if reason != "not_kept")
    assert {reason for _, reason in pairs} == {None, "too_short", "not_kept"}


def test_not_a_number_is_rejected(folder, tmp_path):
    info = sequence_model(tmp_path / "model", "value")
    from safetensors.torch import load_file

    from engine.models._folder import save_model_folder
    from tests.toys.models import CARD

    (member,) = load_members(info)
    tensors = load_file(Path(info.path) / "member-00.safetensors")
    tensors["answer.final.weight"][:] = float("nan")
    member.load_state_dict(tensors)
    save_model_folder(tmp_path / "broken", [member], architecture="sequence_cnn", card=CARD)
    said = words(folder, tmp_path / "out", "--max-rejects", "1")
    said[said.index("--model") + 1] = str(tmp_path / "broken")
    assert replisome_here(*said).returncode == 0
    assert set(table(tmp_path / "out")["reason"]) == {"model_output_not_finite", "not_kept"}


def test_what_does_not_go_together_is_one_sentence(folder, calm, tmp_path):
    def refused(*more: str, model: Path | None = None):
        said = words(folder, tmp_path / "out", *more)
        if model is not None:
            said[said.index("--model") + 1] = str(model)
        return replisome_here(*said)

    assert_one_sentence(refused("--heads", "splice"), 2, "no head 'splice'; it has: class")
    assert_one_sentence(refused(model=tmp_path / "no"), 2, "no such folder")
    stranded = sequence_model(tmp_path / "stranded", symmetry="stranded")
    assert_one_sentence(refused("--both-strands", model=Path(stranded.path)), 2, "reads one strand only")
    said = words(folder, tmp_path / "out")
    said[1] = str(calm)
    assert_one_sentence(replisome_here(*said), 2, "this is a run of predict, not of ingest-sequences")
    said[1] = str(tmp_path)
    assert_one_sentence(replisome_here(*said), 2, "there is no finished run here; give the output of ingest-sequences")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "manifest.json").write_bytes(layout.sealed_json({"job": "ingest_images"}))
    said[1] = str(tmp_path / "images")
    assert_one_sentence(
        replisome_here(*said), 2, "not of ingest-sequences; .*models of images go over it by predict-images"
    )
    assert_one_sentence(replisome_here(*words(folder, calm, "--both-strands")), 2, "both_strands was False, now True")
    sequence_model(tmp_path / "image", "class", architecture="image_cnn", encoder="pixels", symmetry="stranded")
    told = "the model takes images, not sequences; use it in the job predict-images, on a set of images"
    assert_one_sentence(refused(model=tmp_path / "image"), 2, told)
    said = ["evaluate-model", str(folder / "set"), "-m", str(tmp_path / "image"), "-o", str(tmp_path / "out")]
    assert_one_sentence(replisome_here(*said, "--progress", "none"), 2, told)


def test_a_changed_part_is_never_read_as_data(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    part = tmp_path / "copy/set/data/000/part-000001.parquet"
    data = bytearray(part.read_bytes())
    data[200] ^= 1
    part.write_bytes(data)
    done = replisome_here(*words(tmp_path / "copy", tmp_path / "out"))
    assert_one_sentence(done, 2, "part-000001.parquet: .*; restore it from a copy, or make that run anew")
    assert "delete" not in done.stderr  # it is an input


def test_columns_of_one_name_are_refused(folder, tmp_path):
    sequence_model(tmp_path / "model", outputs=("predicted", "site"))
    said = words(folder, tmp_path / "out")
    said[said.index("--model") + 1] = str(tmp_path / "model")
    assert_one_sentence(replisome_here(*said), 2, "two columns would be named 'class_predicted'")


def test_set_and_output_may_lie_on_an_object_store(s3_bucket, folder, calm):
    for path in (folder / "set").rglob("*"):
        if path.is_file():
            open_store(f"{s3_bucket}/set").put(path.relative_to(folder / "set").as_posix(), path.read_bytes())
    said = words(folder, Path("x"))
    said[1], said[said.index("-o") + 1] = f"{s3_bucket}/set", f"{s3_bucket}/out"
    done = replisome_here(*said)
    assert done.returncode == 0, done.stderr
    there = open_store(f"{s3_bucket}/out")
    expected = result_bytes(calm)
    assert {name: there.read(name) for name in there.list() if name not in SIDECARS} == expected
    assert "finished before, nothing to do" in replisome_here(*said).stdout


def test_proteins_and_dna_are_not_mixed(folder, tmp_path):
    proteins = [row(place, "MKVLAAGIW" + letter) for place, letter in enumerate("CDEFGH")]
    ingested(tmp_path, proteins, "--alphabet", "protein")
    given = {"num_tokens": 21, "in_channels": 1, "symmetry": "stranded"}
    sequence_model(tmp_path / "reader", encoder="protein_tokens", **given)
    said = ["predict", str(tmp_path / "set"), "--model", str(tmp_path / "reader"), "--progress", "none", "-o"]
    assert replisome_here(*said, str(tmp_path / "out")).returncode == 0
    found = table(tmp_path / "out")
    assert set(found["state"]) == {"scored"}
    assert found["class_site"].n_unique() > 1
    both = replisome_here(*said, str(tmp_path / "both"), "--both-strands")
    assert_one_sentence(both, 2, "head 'class' reads one strand only and cannot be averaged")
    said[3] = str(folder / "model")
    mixed = replisome_here(*said, str(tmp_path / "mixed"))
    assert_one_sentence(mixed, 2, "the set holds protein, the model's encoder 'one_hot' reads dna")
    said[1], said[3] = str(folder / "set"), str(tmp_path / "reader")
    mixed = replisome_here(*said, str(tmp_path / "mixed"))
    assert_one_sentence(mixed, 2, "the set holds dna, the model's encoder 'protein_tokens' reads protein")


def test_a_set_without_a_sequence_has_rows_all_the_same(folder, tmp_path):
    ingested(tmp_path, [row(0, "ACG!!!!"), row(1, "!!!!")])
    said = words(folder, tmp_path / "out")
    said[1] = str(tmp_path / "set")
    done = replisome_here(*said)
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "out")["reason"].to_list() == ["not_kept", "not_kept"]


def test_every_number_of_the_page_comes_from_the_parts(folder, calm, tmp_path):
    page, found = Page((calm / "report.html").read_text()), table(calm)
    scored = found.filter(pl.col("state") == "scored")
    for state in ("scored", "not_applicable", "rejected"):
        assert page.number(f"counts.{state}") == found.filter(pl.col("state") == state).height
    for name in ("none", "site"):
        told = scored.filter(pl.col("class_predicted") == name).height
        assert page.number(f"head.class.{name}.predicted") == told
        assert page.number(f"head.class.{name}.predicted.share") == pytest.approx(100 * told / scored.height, abs=0.06)
        assert page.number(f"head.class.{name}.mean") == pytest.approx(scored[f"class_{name}"].mean(), abs=0.0006)
    assert page.loose == []
    assert page.is_self_contained()
    base_counter(tmp_path / "counter", width=5)
    said = words(folder, tmp_path / "out", "--max-rejects", "1")
    said[said.index("--model") + 1] = str(tmp_path / "counter")
    assert replisome_here(*said).returncode == 0
    page = Page((tmp_path / "out" / "report.html").read_text())
    values = [one for row in table(tmp_path / "out")["count_G"].to_list() if row is not None for one in row]
    assert page.number("histogram.count_G.num") == len(values)
    assert page.number("histogram.count_G.zero") == values.count(0)
    assert page.number("histogram.count_G.high") == max(values)

"""The job explain-model: as a user runs it, by any number of workers, killed and gone on with, and what it leaves."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pybigtools
import pytest
import torch
import zarr

from engine.encoders.one_hot import OneHot, OneHotParams
from engine.genome.windows import reverse_complement, tokens_from_text
from engine.interpret import deeplift
from engine.interpret._baselines import Baseline
from engine.interpret._target import Question, Target
from engine.io.zarr_reader import CheckedArray
from engine.models._folder import load_members
from engine.models._info import open_model
from engine.models.dilated_conv import DilatedConvParams
from engine.runtime.run import RunContext
from engine.storage.store import open_store
from jobs import explain_model
from schemas.jobs.explain_model import ExplainModelSpec
from tests.toys.explained import DECOYS, motif_file, motif_network
from tests.toys.genome import write_fasta
from tests.toys.models import random_network
from tests.toys.pages import Page
from tests.toys.runs import SIDECARS, assert_same_results, result_bytes
from tests.toys.sequence_runs import ingested, sequence_model
from tests.toys.sequences import MOTIF, motif_rows, row, write_splits
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

torch.set_num_threads(1)

ROWS = [*motif_rows(24), row(24, "ACGTAC!!GT"), row(25, "ACG"), row(26, "ACGTNACGTACGTTTGACA"), *motif_rows(8, seed=5)]


def rows():
    return [{**one, "record": record, "id": f"r{record}"} for record, one in enumerate(ROWS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("explain")
    ingested(place, rows(), records_per_shard=10)
    motif_network(place / "model")
    motif_file(place / "motifs.txt")
    return place


def words(folder: Path, output: Path, *more: str, model: str = "model") -> list[str]:
    given = ["explain-model", str(folder / "set"), "--model", str(folder / model), "-o", str(output)]
    chosen = [
        "--channels",
        "site",
        "--reduce",
        "mean",
        "--motifs",
        str(folder / "motifs.txt"),
        "--motif-p-value",
        "0.01",
    ]
    common = ["--records-per-shard", "8", "--max-rejects", "1", "--progress", "none"]
    return [*given, *(chosen if model == "model" else []), *common, *more]


@pytest.fixture(scope="module")
def calm(folder, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("calm") / "out"
    done = replisome_here(*words(folder, output, "-j", "1"))
    assert done.returncode == 0, done.stderr
    assert "34 records; rows: 33 scored, 0 not applicable, 1 rejected" in done.stdout
    return output


def table(output: Path, name: str = "data") -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted((output / name).rglob("*.parquet"))])


def test_every_chosen_record_has_its_row(folder, calm):
    found = table(calm)
    kept = [record for record in range(len(ROWS)) if record != 24]
    assert found["record"].to_list() == kept
    assert found["row"].to_list() == list(range(len(kept)))
    texts = [ROWS[record]["sequence"] for record in kept]
    scored = found["state"] == "scored"
    assert [one for one in found["sequence"].to_list() if one] == [one for one in texts if len(one) > 6]
    short = found.filter(~scored).row(0, named=True)
    assert (short["record"], short["reason"], short["site_site"]) == (25, "too_short", None)
    errors = found.filter(scored)["site_site_error"].to_numpy()
    assert np.abs(errors).max() < 1e-5
    sums = found.filter(scored)["site_site_contributions"].list.sum().to_numpy()
    gains = (found["site_site"] - found["site_site_baseline"]).filter(scored).to_numpy()
    np.testing.assert_allclose(sums, gains, atol=1e-5)
    assert gains.max() > 0.05
    # The network sees nothing but the motif, and rests on its letters.
    for text, values, output in zip(texts, found["site_site_contributions"], found["site_site"], strict=True):
        if MOTIF in text:
            at = text.index(MOTIF)
            assert np.argsort(values.to_numpy())[-6:].min() >= at
            assert output > 0


def test_arrays_hold_the_same_and_are_checked(folder, calm):
    group = zarr.open_group(calm / "attributions.zarr", mode="r")
    assert dict(group.attrs)["letters"] == "ACGT"
    assert dict(group.attrs)["outputs"] == ["site_site"]
    values, letters, found = group["attributions"][:], group["letters"][:], table(calm)
    assert values.shape == (34, 1, 4, 39)
    target = Target(open_model(folder / "model"), Question("site", ("site",), reduce="mean"))
    for one in found.to_dicts():
        here = values[one["row"], 0]
        if one["state"] != "scored":
            assert np.isnan(here).all()
            assert (letters[one["row"]] == 255).all()
            continue
        text = one["sequence"]
        np.testing.assert_array_equal(letters[one["row"], : len(text)], tokens_from_text(text))
        assert np.isnan(here[:, len(text) :]).all()
        np.testing.assert_allclose(here[:, : len(text)].sum(axis=0), one["site_site_contributions"], atol=1e-6)
    last = found.row(33, named=True)
    again = deeplift.attribute(target, tokens_from_text(last["sequence"]), record=34, baseline=Baseline())
    np.testing.assert_array_equal(values[33, 0, :, : last["length"]], again.values[0])
    checked = CheckedArray(calm / "attributions.zarr", "attributions")
    np.testing.assert_array_equal(checked.row(9), values[9])


def test_the_planted_motif_is_found_and_no_other(folder, calm):
    matches = pl.read_parquet(calm / "motifs.parquet").sort("p_value", nulls_last=True)
    first = matches.row(0, named=True)
    assert (first["motif"], first["name"], first["consensus"]) == ("TATA.1", MOTIF, MOTIF)
    assert first["mean_rank"] > 0.75
    assert first["q_value"] < 1e-4
    assert first["mean_contribution"] > 0
    assert all(one is None or one > 0.01 for one in matches["q_value"][1:])
    hits = table(calm, "motif_hits")
    assert set(hits["motif"]) == {"TATA.1", *DECOYS}
    texts = {one["record"]: one["sequence"] for one in table(calm).to_dicts()}
    for hit in hits.to_dicts():
        word = texts[hit["record"]][hit["start"] : hit["end"]]
        word = word if hit["strand"] == "+" else reverse_complement(word)
        known = {"TATA.1": MOTIF, **DECOYS}[hit["motif"]]
        differing = sum(one != other for one, other in zip(word, known, strict=True))
        assert differing <= (2 if len(known) > 6 else 1)
    counts = hits.group_by("motif").len()
    assert dict(counts.rows()) == dict(matches.select("motif", "hits").rows())


def test_the_page_shows_logos_and_motifs(calm):
    text = (calm / "report.html").read_text()
    page = Page(text)
    assert page.is_self_contained()
    assert page.number("counts.scored") == 33
    found = pl.read_parquet(calm / "motifs.parquet").filter(pl.col("motif") == "TATA.1")
    assert page.number("motif.site_site.TATA.1.hits") == found["hits"][0] >= 16
    assert text.count('<svg class="logo"') >= 9
    assert page.loose == []
    assert page.number("completeness.site_site.num") == 33


def test_the_run_verifies_and_is_left_alone(folder, calm):
    done = replisome_here("verify", str(calm))
    assert done.returncode == 0
    assert "all as committed" in done.stdout
    assert "finished before, nothing to do" in replisome_here(*words(folder, calm)).stdout
    other = replisome_here(*words(folder, calm, "--steps", "5", "--method", "integrated_gradients"))
    assert_one_sentence(other, 2, r"method was \['deeplift', 1\], now \['integrated_gradients', 1\]")


def test_two_workers_give_the_same_bytes(folder, calm, tmp_path):
    done = replisome(*words(folder, tmp_path / "out", "-j", "2"))
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.ray
def test_ray_gives_the_same_bytes(ray_cluster, folder, calm, tmp_path):
    spec = ExplainModelSpec.model_validate(
        {
            "sequences": str(folder / "set"),
            "model": str(folder / "model"),
            "channels": ["site"],
            "reduce": "mean",
            "motifs": {"file": str(folder / "motifs.txt"), "p_value": 0.01},
            "output": str(tmp_path / "out"),
            "max_reject_fraction": 1.0,
            "execution": {"executor": "ray", "workers": 2, "records_per_shard": 8},
        }
    )
    explain_model.run(spec, RunContext(progress="none"))
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.parametrize("fault", ["kill-parent@mid-part#2", "kill@before-manifest"])
def test_a_killed_driver_loses_nothing(folder, calm, tmp_path, fault):
    killed = replisome(*words(folder, tmp_path / "out", "-j", "1"), fault=fault)
    assert killed.returncode == -signal.SIGKILL
    again = replisome_here(*words(folder, tmp_path / "out"))
    assert again.returncode == 0, again.stderr
    assert_same_results(tmp_path / "out", calm)


def test_a_damaged_file_of_a_shard_stops_the_commit(folder, tmp_path):
    killed = replisome(*words(folder, tmp_path / "out", "-j", "1"), fault="kill@between-parts#5")
    assert killed.returncode == -signal.SIGKILL
    for damaged in ("attributions.zarr/attributions/c/2/0/0/0", "motif_hits/000/part-000001.parquet"):
        path = tmp_path / "out" / damaged
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        done = replisome_here(*words(folder, tmp_path / "out"))
        assert_one_sentence(done, 2, "the file is missing or damaged")
        assert damaged in done.stderr
        path.write_bytes(whole)


@pytest.mark.parametrize("method", ["mutagenesis", "integrated_gradients"])
def test_chosen_rows_and_the_other_methods(folder, calm, tmp_path, method):
    write_splits(folder / "splits.parquet", rows(), lambda record: "test" if record % 3 else "train")
    said = words(folder, tmp_path / "out", "--method", method, "--ids", "r13,r25,r2,r24,r30,r1", "--limit", "4")
    done = replisome_here(*said, "--splits", str(folder / "splits.parquet"))
    assert done.returncode == 0, done.stderr
    found = table(tmp_path / "out")
    assert found["id"].to_list() == ["r1", "r2", "r13", "r25"]
    assert found["site_site"].to_list()[:3] == pytest.approx(
        table(calm).filter(pl.col("id").is_in(["r1", "r2", "r13"]))["site_site"].to_list(), abs=1e-5
    )
    assert found["site_site_baseline"].null_count() == (4 if method == "mutagenesis" else 1)
    strongest = found["site_site_contributions"][0].arg_max()
    assert 0 <= strongest - ROWS[1]["sequence"].index(MOTIF) < 6


def test_both_strands_and_chosen_positions(folder, calm, tmp_path):
    """Of each record its mean with the reverse complement; one without so many positions is rejected."""
    params = {"outputs": ("none", "site"), "head": "site", "symmetry": "symmetric", "blocks": ((3, 1),)}
    info = random_network(folder / "strands", DilatedConvParams(channels=6, **params))
    chosen = ("--ids", "r1,r25,r26", "--channels", "site", "--reduce", "sum")
    more = (*chosen, "--first-position", "2", "--end-position", "9", "--both-strands")
    done = replisome_here(*words(folder, tmp_path / "out", *more, model="strands"))
    assert done.returncode == 0, done.stderr
    found = table(tmp_path / "out")
    assert found["reason"].to_list() == [None, "too_short", None]
    text, strands = ROWS[1]["sequence"], []
    for tokens in (tokens_from_text(text), reverse_complement(tokens_from_text(text))):
        x = OneHot(OneHotParams()).tensor(torch.from_numpy(tokens[None]))
        with torch.no_grad():
            logs = load_members(info)[0](x)["site"][0].log()
        values = (logs - logs.mean(dim=0))[1].numpy()
        strands.append(values if not strands else values[::-1])
    assert found["site_site"][0] == pytest.approx(np.mean(strands, axis=0)[2:9].sum(), abs=1e-4)
    gap = found["site_site"][0] - found["site_site_baseline"][0]
    assert sum(found["site_site_contributions"][0]) == pytest.approx(gap, abs=1e-3)


def test_set_and_output_may_lie_on_an_object_store(s3_bucket, folder, calm):
    for path in (folder / "set").rglob("*"):
        if path.is_file():
            open_store(f"{s3_bucket}/explained").put(path.relative_to(folder / "set").as_posix(), path.read_bytes())
    said = words(folder, Path("x"))
    said[1], said[said.index("-o") + 1] = f"{s3_bucket}/explained", f"{s3_bucket}/explanations"
    done = replisome_here(*said)
    assert done.returncode == 0, done.stderr
    there = open_store(f"{s3_bucket}/explanations")
    assert {name: there.read(name) for name in there.list() if name not in SIDECARS} == result_bytes(calm)


def test_windows_of_a_genome_become_a_track(folder, tmp_path):
    draw = np.random.default_rng(0)
    text = "".join(draw.choice(list("ACGT"), 300))
    text = text[:100] + MOTIF + text[106:]
    write_fasta(tmp_path / "ref.fa", {"c1": text, "c2": text[:90]})
    places = [("c1", 60, 120, "+"), ("c1", 90, 150, "-"), ("c1", 250, 310, "+"), ("c2", -10, 50, "-")]
    lines = [f"{contig}\t{max(start, 0)}\t{end}\tw\t0\t{strand}" for contig, start, end, strand in places]
    (tmp_path / "in.bed").write_text("\n".join(lines) + "\n")
    done = replisome_here(
        *("ingest-sequences", str(tmp_path / "in.bed"), "--reference", str(tmp_path / "ref.fa"), "--window", "60"),
        *("-o", str(tmp_path / "set"), "--max-rejects", "1", "--progress", "none", "--duplicates", "keep"),
    )
    assert done.returncode == 0, done.stderr
    done = replisome_here(
        *("explain-model", str(tmp_path / "set"), "--model", str(folder / "model"), "--progress", "none"),
        *("--max-rejects", "1", "--reference", str(tmp_path / "ref.fa"), "-o", str(tmp_path / "out")),
        *("--channels", "site", "--reduce", "mean"),
    )
    assert done.returncode == 0, done.stderr
    found = table(tmp_path / "out")
    file = pybigtools.open(str(tmp_path / "out" / "contributions-site_site.bw"))
    assert file.chroms() == {"c1": 300, "c2": 90}
    sums, counts = {"c1": np.zeros(300), "c2": np.zeros(90)}, {"c1": np.zeros(300), "c2": np.zeros(90)}
    for one in found.to_dicts():
        values = one["site_site_contributions"]
        for base, value in enumerate(values if one["strand"] == "+" else values[::-1], start=one["start"]):
            if 0 <= base < len(sums[one["contig"]]):
                sums[one["contig"]][base] += value
                counts[one["contig"]][base] += 1
    for contig, length in file.chroms().items():
        with np.errstate(invalid="ignore"):
            expected = sums[contig] / counts[contig]
        np.testing.assert_allclose(file.values(contig, 0, length, fillna=None), expected, atol=1e-6)
    assert replisome_here("verify", str(tmp_path / "out")).returncode == 0


def test_what_does_not_go_together_is_one_sentence(folder, tmp_path):
    def refused(*more: str, model: str = "model"):
        return replisome_here(*words(folder, tmp_path / "out", *more, model=model))

    assert_one_sentence(refused("--head", "splice"), 2, "no head 'splice'; it has: site")
    assert_one_sentence(refused("--channels", "x"), 2, "no channel 'x'; it has: none, site")
    assert_one_sentence(refused("--ids", "nobody"), 2, "no record of the set is named 'nobody'")
    assert_one_sentence(refused("--motifs", str(tmp_path / "no")), 2, "the motif file cannot be read")
    assert_one_sentence(refused("--set", "rows.fold=1"), 2, "a fold needs file")
    assert_one_sentence(refused("--reduce", "middle", "--end-position", "3"), 2, "set reduce to mean or sum")
    assert_one_sentence(
        refused("--both-strands"),
        2,
        "head 'site' reads one strand only and cannot be averaged over both; set both_strands: false",
    )
    said = refused("--first-position", "3", "--end-position", "3")
    assert_one_sentence(said, 2, "end_position must be above first_position, 3")
    sequence_model(folder / "gru", architecture="recurrent")
    assert_one_sentence(refused(model="gru"), 2, "DeepLIFT has no rule for GRU layers; use integrated_gradients")
    sequence_model(folder / "wide", outputs=tuple(f"c{i}" for i in range(9)))
    assert_one_sentence(refused(model="wide"), 2, "head 'class' has 9 channels")
    sequence_model(folder / "odd", outputs=("a", "a_error"))
    assert_one_sentence(refused(model="odd"), 2, "two columns would be named 'class_a_error'")


def test_not_a_number_is_rejected(folder, tmp_path):
    from safetensors.torch import load_file

    from engine.models._folder import load_members, save_model_folder
    from tests.toys.models import CARD

    info = open_model(folder / "model")
    (member,) = load_members(info)
    tensors = load_file(Path(info.path) / "member-00.safetensors")
    tensors["final.weight"][:] = float("nan")
    member.load_state_dict(tensors)
    save_model_folder(tmp_path / "model", [member], architecture="dilated_conv", card=CARD)
    said = words(folder, tmp_path / "out", "--limit", "3")
    said[said.index("--model") + 1] = str(tmp_path / "model")
    assert replisome_here(*said).returncode == 0
    assert set(table(tmp_path / "out")["reason"]) == {"model_output_not_finite"}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["totals"]["states"]["rejected"] == 3


def test_plan_says_what_would_run(folder, tmp_path):
    found = replisome_here(*words(folder, tmp_path / "out", "--plan"))
    assert "5 of 5 shards to run" in found.stdout
    assert not (tmp_path / "out" / "run.json").exists()

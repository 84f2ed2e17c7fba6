"""The job predict-track: tracks along a genome equal the whole contig at once, however it is cut and by whomever."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import polars as pl
import pybigtools
import pytest
import torch

from engine.encoders.one_hot import OneHot, OneHotParams
from engine.genome.windows import reverse_complement
from engine.io import bigwig_sink
from engine.io.bigwig import BigWig
from engine.models._folder import load_members
from engine.models._info import open_model
from engine.models.dilated_conv import DilatedConvParams
from engine.runtime.run import RunContext
from jobs import predict_track
from schemas.jobs.predict_track import PredictTrackSpec
from tests.toys.genome import write_fasta
from tests.toys.models import base_counter, count_bases, random_network, splice_motifs
from tests.toys.pages import Page
from tests.toys.runs import assert_same_results
from tests.toys.sequence_runs import sequence_model
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

torch.set_num_threads(1)

DRAW = np.random.default_rng(0)
C1 = "".join(DRAW.choice(list("ACGT"), 530))
GENOME = {"c2": "".join(DRAW.choice(list("ACGT"), 97)), "c1": C1[:200] + "N" * 130 + C1[330:], "c3": "NNNN"}
MODELS = {"count": 5, "wide": 41}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("track")
    write_fasta(place / "ref.fa", GENOME)
    for name, width in MODELS.items():
        base_counter(place / name, width=width)
    splice_motifs(place / "splice")
    return place


def words(folder: Path, output: Path, *more: str, model: str = "count") -> list[str]:
    given = ["predict-track", "--reference", str(folder / "ref.fa"), "--model", str(folder / model), "-o", str(output)]
    return [*given, "--progress", "none", *more]


def ran(folder: Path, output: Path, *more: str, model: str = "count") -> Path:
    done = replisome_here(*words(folder, output, *more, model=model))
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def calm(folder, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("calm") / "out"
    return ran(folder, output, "--tile", "40", "--records-per-shard", "4", "-j", "1")


def whole(text: str, width: int) -> np.ndarray:
    """(4, L): the counts of the whole contig at once, N past its ends; NaN where the base is N."""
    flank = "N" * (width // 2)
    counts = count_bases(flank + text + flank, width).astype(np.float64)
    counts[:, [base == "N" for base in text]] = np.nan
    return counts


def track(output: Path, name: str, contig: str) -> np.ndarray:
    """By pybigtools, and by our own reader, which agree."""
    path = output / f"{name}.bw"
    found: np.ndarray = pybigtools.open(str(path)).values(contig, 0, len(GENOME[contig]), fillna=None)
    np.testing.assert_array_equal(found, BigWig(path).values(contig, 0, len(GENOME[contig])))
    return found


def table(output: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted((output / "data").rglob("*.parquet"))])


@pytest.mark.parametrize(("model", "tile"), [("count", "40"), ("count", "7"), ("wide", "1000"), ("wide", "33")])
def test_tracks_are_the_whole_contig_at_once(folder, tmp_path, model, tile):
    output = ran(folder, tmp_path / "out", "--tile", tile, "--records-per-shard", "4", model=model)
    for contig, text in GENOME.items():
        expected = whole(text, MODELS[model])
        for row, base in enumerate("ACGT"):
            np.testing.assert_array_equal(track(output, f"count_{base}", contig), expected[row])
    found = table(output)
    assert found["end"].to_list()[-1] == 4
    assert (found["end"] - found["start"]).sum() == sum(map(len, GENOME.values()))
    assert found.filter(pl.col("state") != "scored")["reason"].unique().to_list() == ["no_bases"]


def test_the_table_holds_the_same_values(folder, calm):
    for one in table(calm).to_dicts():
        expected = track(calm, "count_G", one["contig"])[one["start"] : one["end"]]
        if one["state"] == "scored":
            np.testing.assert_array_equal(np.array(one["count_G"], np.float64), expected)
            assert one["span"] == 1
        else:
            assert one["count_G"] is None
            assert np.isnan(expected).all()
    assert replisome_here("verify", str(calm)).returncode == 0
    page = Page((calm / "report.html").read_text())
    assert page.is_self_contained()
    assert page.number("counts.rows") == len(table(calm))


def test_a_network_of_rounded_numbers_by_any_tile(folder, tmp_path):
    params = DilatedConvParams(channels=6, blocks=((5, 1), (5, 3)), norm="batch", symmetry="symmetric")
    random_network(tmp_path / "model", params, members=2)
    (tmp_path / "ref.fa").symlink_to(folder / "ref.fa")
    outputs = [ran(tmp_path, tmp_path / tile, "--tile", tile, model="model") for tile in ("50", "100000")]
    for name in ("splice_none", "splice_acceptor", "splice_donor"):
        one, other = (track(output, name, "c1") for output in outputs)
        np.testing.assert_allclose(one, other, atol=1e-6)
        assert np.nanstd(one) > 1e-3


def test_two_workers_give_the_same_bytes(folder, calm, tmp_path):
    done = replisome(*words(folder, tmp_path / "out", "--tile", "40", "--records-per-shard", "4", "-j", "2"))
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.ray
def test_ray_gives_the_same_bytes(ray_cluster, folder, calm, tmp_path):
    spec = PredictTrackSpec.model_validate(
        {
            "reference": str(folder / "ref.fa"),
            "model": str(folder / "count"),
            "output": str(tmp_path / "out"),
            "execution": {"executor": "ray", "workers": 2, "tile_bp": 40, "records_per_shard": 4},
        }
    )
    predict_track.run(spec, RunContext(progress="none"))
    assert_same_results(tmp_path / "out", calm)


def test_a_killed_driver_loses_nothing(folder, calm, tmp_path):
    said = words(folder, tmp_path / "out", "--tile", "40", "--records-per-shard", "4", "-j", "1")
    assert replisome(*said, fault="kill@between-parts#3").returncode == -signal.SIGKILL
    again = replisome_here(*said)
    assert again.returncode == 0, again.stderr
    assert_same_results(tmp_path / "out", calm)


def test_regions_and_a_bed_give_the_same_values_there(folder, calm, tmp_path):
    (tmp_path / "x.bed").write_text("c1\t55\t90\nc1\t80\t141\nc2\t90\t97\n")
    bed = ran(folder, tmp_path / "bed", "-R", str(tmp_path / "x.bed"), "--tile", "40", "--channels", "C,A")
    texts = ran(folder, tmp_path / "texts", "-r", "c1:56-141,c2:91-", "--tile", "40", "--channels", "C,A")
    assert_same_results(bed, texts)
    assert sorted(path.name for path in bed.glob("*.bw")) == ["count_A.bw", "count_C.bw"]
    inside = {"c1": (55, 141), "c2": (90, 97)}
    for contig, (start, end) in inside.items():
        expected = track(calm, "count_C", contig)
        expected[:start] = expected[end:] = np.nan
        np.testing.assert_array_equal(track(bed, "count_C", contig), expected)
    assert set(pybigtools.open(str(bed / "count_C.bw")).chroms()) == {"c1", "c2"}


def test_strands_as_the_head_declares(folder, tmp_path):
    """A head that reads one strand gives both tracks; a paired one the other strand's channel."""
    output = ran(folder, tmp_path / "splice", "--channels", "donor", "--tile", "64", model="splice")
    (member,) = load_members(open_model(folder / "splice"))
    encoder, text = OneHot(OneHotParams()), GENOME["c2"]
    for strand, read in (("plus", text), ("minus", reverse_complement(text))):
        x = encoder.tensor(torch.from_numpy(encoder.encode(f"NN{read}NN"))[None])
        with torch.no_grad():
            donor = member(x)["splice"][0, 2].numpy()
        expected = donor if strand == "plus" else donor[::-1]
        np.testing.assert_allclose(track(output, f"splice_donor_{strand}", "c2"), expected, atol=1e-6)
    minus = ran(folder, tmp_path / "minus", "--strands", "minus", "-r", "c2")
    # T on the reference is A on the other strand, and a paired head says so of the base it is of.
    np.testing.assert_array_equal(track(minus, "count_A_minus", "c2"), whole(text, 5)[0])
    mean = ran(folder, tmp_path / "mean", "--strands", "mean", "-r", "c2")
    np.testing.assert_array_equal(track(mean, "count_A", "c2"), whole(text, 5)[0])
    refused = replisome_here(*words(folder, tmp_path / "no", "--strands", "mean", model="splice"))
    assert_one_sentence(refused, 2, "head 'splice' reads one strand only")


@pytest.mark.parametrize("tile", ["24", "1000"])
def test_windows_at_a_stride(folder, tmp_path, tile):
    info = sequence_model(tmp_path / "model", "value")
    (tmp_path / "ref.fa").symlink_to(folder / "ref.fa")
    given = ("--window", "31", "--stride", "12", "-r", "c1,c2", "--tile", tile)
    output = ran(tmp_path, tmp_path / "out", *given, model="model")
    (member,), encoder = load_members(info), OneHot(OneHotParams())
    for contig in ("c1", "c2"):
        text = GENOME[contig]
        expected = np.full(len(text), np.nan)
        for start in range(0, len(text), 12):
            low = start + 6 - 15
            window = "".join(text[at] if 0 <= at < len(text) else "N" for at in range(low, low + 31))
            if set(window) != {"N"}:
                with torch.no_grad():
                    value = member(encoder.tensor(torch.from_numpy(encoder.encode(window))[None]))["value"]
                expected[start : start + 12] = float(value)
        np.testing.assert_allclose(track(output, "value", contig), expected, atol=1e-5)
    found = table(output)
    assert set(found["span"]) == {12}
    for one in found.filter(pl.col("state") == "scored").to_dicts():
        assert len(one["value"]) == -(-(one["end"] - one["start"]) // 12)


def test_a_channels_name_is_no_path(folder, tmp_path):
    sequence_model(tmp_path / "model", "value", outputs=("CD4/CD8", "../../x"))
    (tmp_path / "ref.fa").symlink_to(folder / "ref.fa")
    output = ran(tmp_path, tmp_path / "out", "--window", "31", "--stride", "12", "-r", "c2", model="model")
    assert {path.name for path in output.iterdir() if path.suffix == ".bw"} == {
        "value_CD4%2FCD8.bw",
        "value_..%2F..%2Fx.bw",
    }
    assert replisome_here("verify", str(output)).returncode == 0


def test_too_many_contigs_are_refused_before_anything_runs(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bigwig_sink, "_MOST_CONTIGS", 2)
    told = "a bigWig file of 3 contigs, wanted are 1 to 2; choose contigs"
    assert_one_sentence(replisome_here(*words(folder, tmp_path / "out")), 2, told)
    assert not (tmp_path / "out" / "data").exists()


def test_what_does_not_go_together_is_one_sentence(folder, tmp_path):
    def refused(*more: str, model: str = "count"):
        return replisome_here(*words(folder, tmp_path / "out", *more, model=model))

    sequence_model(folder / "sequence", "value", pool="place", length=40)
    assert_one_sentence(refused("--head", "x"), 2, "no head 'x'; it has: count")
    assert_one_sentence(refused("--channels", "x"), 2, "no channel 'x'; it has: A, C, G, T")
    assert_one_sentence(refused("-r", "chr9"), 2, "chr9")
    assert_one_sentence(refused("--window", "9"), 2, "head 'count' has a value for every base")
    assert_one_sentence(refused(model="sequence"), 2, "gives one answer for a whole sequence; give --window")
    said = refused("--window", "41", "--stride", "9", model="sequence")
    assert_one_sentence(said, 2, "a window of 41 bases, the model takes 1 to 40")
    assert_one_sentence(refused("-r", "c1:600-700"), 2, "no region holds a base of the reference")
    given = {"encoder": "protein_tokens", "num_tokens": 21, "in_channels": 1, "symmetry": "stranded"}
    sequence_model(folder / "protein", "value", **given)
    assert_one_sentence(refused(model="protein"), 2, "the model does not read DNA")
    for architecture in ("sequence_cnn", "transformer"):
        sequence_model(folder / architecture, "class", architecture=architecture, level="position")
        told = "head 'class' tells a base by all that is read with it, so its values change with the tiles; use"
        assert_one_sentence(refused(model=architecture), 2, told)
    (tmp_path / "empty.bed").write_text("# nothing\n")
    assert_one_sentence(refused("-R", str(tmp_path / "empty.bed")), 2, "no region is named")

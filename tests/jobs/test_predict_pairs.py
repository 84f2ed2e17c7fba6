"""predict and evaluate-model on pairs and on positions: rows against the networks themselves, figures against rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn import metrics

from engine import registry
from engine.models._folder import ModelCard, load_members, save_model_folder
from engine.models._info import open_model
from engine.scoring._metrics import concordance, pearson
from tests.toys.models import splice_motifs
from tests.toys.pages import Page
from tests.toys.runs import assert_same_results
from tests.toys.sequences import pair_rows, state_rows
from tests.toys.variant_runs import assert_one_sentence, replisome_here

torch.set_num_threads(1)

PAIR = {"name": "pair", "params": {"first": "protein_tokens", "second": "smiles_tokens"}}
PROTEIN = {"name": "protein_tokens", "params": {}}
TOWER = {"name": "sequence_cnn", "params": {"channels": 6, "blocks": 0, "dropout": 0.0}}
MODELS = {
    "pairs": ("pair_network", {"first": TOWER, "second": TOWER, "hidden": (5,), "head": "affinity"}, PAIR),
    "positions": (
        "recurrent",
        {
            **{"channels": 6, "level": "position", "outputs": ("C", "E", "H"), "activation": "softmax"},
            **{"head": "state", "in_channels": 1, "num_tokens": 21},
        },
        PROTEIN,
    ),
}


def model(folder: Path, kind: str, *, task: object = None) -> Path:
    architecture, params, encoder = MODELS[kind]
    cls = registry.component("models", architecture)
    made = []
    for number in range(2):
        torch.manual_seed(number)
        one = cls(registry.build_params(cls, params, where="test"))
        for tensor in one.parameters():
            torch.nn.init.normal_(tensor, std=0.5)
        made.append(one.eval())
    card = ModelCard(
        name="toy", version="1", licence="Apache-2.0", text="# A toy", encoder=encoder, extra={"task": task}
    )
    save_model_folder(folder, made, architecture=architecture, card=card)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("sets")
    pairs = pl.DataFrame([{**row, "target": round(row["target"], 1)} for row in pair_rows(90)])
    pairs.select("id", "sequence", "second", "second_id", "target").write_csv(place / "pairs.csv")
    states = pl.DataFrame([{key: row[key] for key in ("id", "sequence", "position_labels")} for row in state_rows(60)])
    states.write_csv(place / "positions.csv")
    more = {
        "pairs": ("--second", "second", "--targets", "target"),
        "positions": ("--position-labels", "position_labels"),
    }
    for kind, words in more.items():
        done = replisome_here(
            *("ingest-sequences", str(place / f"{kind}.csv"), "-o", str(place / kind), "--progress", "none"),
            *("--alphabet", "protein", "--records-per-shard", "25", *words),
        )
        assert done.returncode == 0, done.stderr
        model(place / f"{kind}-model", kind, task=["pair_regression", {"censored_at": 5.0}])
    return place


def words(job: str, folder: Path, kind: str, output: Path, *more: str) -> list[str]:
    given = [job, str(folder / kind), "--model", str(folder / f"{kind}-model"), "-o", str(output)]
    return [*given, "--records-per-shard", "20", "--progress", "none", *more]


@pytest.fixture(scope="module")
def predicted(folder, tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("predicted")
    for kind in MODELS:
        done = replisome_here(*words("predict", folder, kind, place / kind, "-j", "1"))
        assert done.returncode == 0, done.stderr
    return {kind: place / kind for kind in MODELS}


def table(output: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted((output / "data").rglob("*.parquet"))])


def alone(folder: Path, kind: str, *texts: str) -> np.ndarray:
    """One record through every member, averaged: (K,) or (K, L)."""
    encoder_class = registry.component("encoders", MODELS[kind][2]["name"])
    encoder = encoder_class(registry.build_params(encoder_class, MODELS[kind][2]["params"], where="test"))
    sides = [encoder.first, encoder.second] if kind == "pairs" else [encoder]
    tensors = []
    for side, text in zip(sides, texts, strict=True):
        tensors += [side.tensor(torch.from_numpy(side.encode(text))[None]), None]
    with torch.inference_mode():
        outputs = [next(iter(one(*tensors).values())) for one in load_members(open_model(folder / f"{kind}-model"))]
    return np.mean([one[0].numpy() for one in outputs], axis=0)


def test_rows_of_pairs_are_what_the_networks_say_of_each(folder, predicted):
    found = table(predicted["pairs"])
    rows = pair_rows(90)
    assert found["record"].to_list() == list(range(90))
    assert found.select("id", "second_id").rows() == [(row["id"], row["second_id"]) for row in rows]
    wanted = [alone(folder, "pairs", row["sequence"], row["second"])[0] for row in rows]
    np.testing.assert_allclose(found["affinity_value"].to_numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_lists_of_positions_are_what_the_networks_say_of_each(folder, predicted):
    found = table(predicted["positions"])
    for row, told in zip(state_rows(60), found.to_dicts(), strict=True):
        wanted_KL = alone(folder, "positions", row["sequence"])
        values_KL = np.array([told[f"state_{name}"] for name in "CEH"])
        np.testing.assert_allclose(values_KL, wanted_KL, rtol=1e-4, atol=1e-5)
        assert told["state_predicted"] == "".join("CEH"[place] for place in wanted_KL.argmax(axis=0))


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_two_workers_give_the_same_bytes(folder, predicted, kind, tmp_path):
    done = replisome_here(*words("predict", folder, kind, tmp_path / "out", "-j", "2"))
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", predicted[kind])


@pytest.fixture(scope="module")
def judged(folder, tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("judged")
    more = {"pairs": ("--audit", "second_id", "--cluster", "id"), "positions": ("--audit", "length")}
    for kind in MODELS:
        done = replisome_here(*words("evaluate-model", folder, kind, place / kind, "--bootstrap", "50", *more[kind]))
        assert done.returncode == 0, done.stderr
    return {kind: place / kind for kind in MODELS}


def figures(output: Path) -> dict[tuple[str, str, str], dict]:
    return {
        (row["scope"], row["name"], row["metric"]): row
        for row in pl.read_parquet(output / "metrics.parquet").to_dicts()
    }


def test_figures_of_pairs_are_those_of_the_rows(predicted, judged):
    rows = table(predicted["pairs"]).join(table(judged["pairs"]).select("record", "target"), on="record")
    value, truth = rows["affinity_value"].to_numpy(), rows["target"].to_numpy()
    found = figures(judged["pairs"])
    seen = truth != 5.0
    assert 0 < seen.sum() < len(seen)
    wanted = {
        "pearson": pearson(value, truth),
        "mse": np.mean((value - truth) ** 2),
        "concordance": concordance(value, truth),
        "concordance_uncensored": concordance(value[seen], truth[seen]),
    }
    for name, figure in wanted.items():
        assert found["all", "", name]["value"] == pytest.approx(figure, rel=1e-5), name
    some = rows["second_id"].to_numpy() == "d3"
    assert found["group", "d3", "concordance"]["value"] == pytest.approx(concordance(value[some], truth[some]))
    assert found["group", "d3", "concordance"]["num"] == some.sum()
    page = Page((judged["pairs"] / "report.html").read_text())
    assert "all.concordance.value" in page.keyed


def test_figures_of_positions_are_those_of_the_letters(predicted, judged):
    told = table(predicted["positions"])["state_predicted"].to_list()
    truth = [row["position_labels"] for row in state_rows(60)]
    pairs = [
        (t, c) for one, other in zip(truth, told, strict=True) for t, c in zip(one, other, strict=True) if t != "."
    ]
    counts = np.array([[sum((t, c) == (a, b) for t, c in pairs) for b in "CEH"] for a in "CEH"])
    found = figures(judged["positions"])
    assert found["all", "", "accuracy"]["value"] == pytest.approx(np.trace(counts) / counts.sum())
    shares = [
        np.mean([t == c for t, c in zip(one, other, strict=True) if t != "."])
        for one, other in zip(truth, told, strict=True)
    ]
    assert found["all", "", "accuracy_per_sample"]["value"] == pytest.approx(np.mean(shares))
    for place, name in enumerate("CEH"):
        hits, true, said = counts[place, place], counts[place].sum(), counts[:, place].sum()
        assert found["class", name, "recall"]["value"] == pytest.approx(hits / true)
        assert found["class", name, "f1"]["value"] == pytest.approx(2 * hits / (true + said))
        rest = counts.sum() - true - said + hits
        mcc = (hits * rest - (said - hits) * (true - hits)) / np.sqrt(
            float(said) * true * (counts.sum() - true) * (counts.sum() - said)
        )
        assert found["class", name, "mcc"]["value"] == pytest.approx(mcc)
        assert found["class", name, "mcc"]["num_positive"] == true
    content = json.loads((judged["positions"] / "metrics.json").read_text())
    errors, rows = content["binning"], table(predicted["positions"])
    flat = np.array(list("".join(truth)))
    areas = {"auroc": metrics.roc_auc_score, "auprc": metrics.average_precision_score}
    for metric, area in areas.items():
        each = []
        for name in "CEH":
            score = np.concatenate(rows[f"state_{name}"].to_list()).astype(np.float64)
            each.append(area(flat[flat != "."] == name, score[flat != "."]))
            value = found["class", name, metric]["value"]
            assert value == pytest.approx(each[-1], abs=errors[metric] + 1e-9)
            assert found["class", name, metric]["low"] <= value <= found["class", name, metric]["high"]
        assert found["all", "", metric]["value"] == pytest.approx(np.mean(each), abs=errors[metric] + 1e-9)
    assert max(errors.values()) < 0.01
    assert content["confusion"] == counts.tolist()
    assert sum(one["num"] for one in content["reliability"]) == counts.sum()
    gap = sum(one["num"] * abs(one["confidence"] - one["observed"]) for one in content["reliability"]) / counts.sum()
    assert found["all", "", "calibration_error"]["value"] == pytest.approx(gap)
    assert {row["name"] for key, row in found.items() if key[0] == "group"}
    assert all(row["low"] <= row["high"] for row in found.values() if row["low"] is not None)


def test_splice_sites_are_judged_by_letters(tmp_path):
    """A head that calls its classes none, acceptor and donor, and reads bases beyond those that it tells of."""
    splice_motifs(tmp_path / "model", context_bp=4)
    draw = np.random.default_rng(0)
    rows = []
    for number in range(12):
        text = "".join(draw.choice(list("ACGT"), 60))
        before = {place + 2 for place in range(58) if text[place : place + 2] == "AG"}
        after = {place - 1 for place in range(58) if text[place : place + 2] == "GT"}
        truth = ["A" if place in before else "D" if place in after else "N" for place in range(60)]
        for place in draw.choice(60, 6, replace=False):  # some labels say nothing
            truth[place] = str(draw.choice(list("NAD")))
        rows.append({"id": f"s{number}", "sequence": text, "position_labels": "".join(truth)})
    pl.DataFrame(rows).write_csv(tmp_path / "rows.csv")
    given = ("ingest-sequences", str(tmp_path / "rows.csv"), "--position-labels", "position_labels")
    assert replisome_here(*given, "-o", str(tmp_path / "set"), "--progress", "none").returncode == 0
    given = ("evaluate-model", str(tmp_path / "set"), "-m", str(tmp_path / "model"), "--letters", "NAD")
    done = replisome_here(*given, "-o", str(tmp_path / "out"), "--bootstrap", "20", "--progress", "none", "-j", "1")
    assert done.returncode == 0, done.stderr
    frame, found = table(tmp_path / "out"), figures(tmp_path / "out")
    errors = json.loads((tmp_path / "out" / "metrics.json").read_text())["binning"]
    truth = np.array([list(text[2:-2]) for text in frame["position_labels"]]).ravel()
    for name in "AD":
        score = np.concatenate(frame[f"splice_{name}"].to_list())
        is_of = truth == name
        k = is_of.sum()
        # Equal scores in all orders: those above the k-th, and their share of the rest.
        edge = np.sort(score)[-k]
        above, ties = is_of[score > edge], is_of[score == edge]
        expected = (above.sum() + (k - len(above)) * ties.mean()) / k
        value = found["class", name, "topk_accuracy"]["value"]
        assert value == pytest.approx(expected, abs=errors["topk_accuracy"] + 1e-9)
        assert 0.4 < value < 1
        assert found["class", name, "auprc"]["value"] == pytest.approx(
            metrics.average_precision_score(is_of, score), abs=errors["auprc"] + 1e-9
        )


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_former_predictions_are_judged_alike(folder, predicted, judged, kind, tmp_path):
    given = ["evaluate-model", str(folder / kind), "--predictions", str(predicted[kind]), "-o", str(tmp_path / "out")]
    done = replisome_here(*given, "--bootstrap", "0", "--progress", "none")
    assert done.returncode == 0, done.stderr
    mine, theirs = figures(tmp_path / "out"), figures(judged[kind])
    for key, row in mine.items():
        assert row["value"] == pytest.approx(theirs[key]["value"], rel=1e-6), key


def test_what_does_not_go_together_is_one_sentence(folder, tmp_path):
    crossed = [
        "predict",
        str(folder / "positions"),
        "--model",
        str(folder / "pairs-model"),
        "-o",
        str(tmp_path / "out"),
    ]
    assert_one_sentence(
        replisome_here(*crossed), 2, "the set holds no pairs, which the model takes; make it with --second"
    )
    asked = words("evaluate-model", folder, "positions", tmp_path / "out", "--audit", "second_id")
    assert_one_sentence(replisome_here(*asked), 2, "the set, which holds single sequences, has no second_id")

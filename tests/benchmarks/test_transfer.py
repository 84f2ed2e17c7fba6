"""The benchmark of transfer: what it leaves out, what it parts, and the whole of it on a toy genome."""

from __future__ import annotations

import gzip
import random

import numpy as np
import pytest
import torch

from benchmarks import transfer

torch.set_num_threads(1)


def turned(text: str) -> str:
    return text.translate(str.maketrans("ACGT", "TGCA"))[::-1]


def test_no_window_shares_a_letter_with_a_place_of_a_test_row():
    draw = random.Random(0)
    genome = "".join(draw.choice("ACGT") for _ in range(6000))
    genome = genome[:4000] + genome[1000:1081] + genome[4081:]  # the first stands twice
    sequences = [genome[1000:1081], turned(genome[2500:2581]), "A" * 40]
    windows = list(transfer.windows_without(genome, sequences))
    size = transfer.WINDOW_BP
    whole = [(begin, begin + size) for begin in range(0, len(genome) - size + 1, size)]
    touched = [(1000, 1081), (2500, 2581), (4000, 4081)]
    wanted = [one for one in whole if all(one[1] <= begin or one[0] >= end for begin, end in touched)]
    assert windows == wanted
    assert 3 <= len(whole) - len(windows) <= 6


def test_training_rows_are_drawn_by_the_seed_from_those_to_train_on():
    parts = [transfer.part_of(f"ACGT{number}") for number in range(400)]
    shares = [parts.count(part) / 400 for part in ("test", "validation", "train")]
    assert shares == pytest.approx([0.25, 0.05, 0.7], abs=0.07)
    few, more, other = (transfer.drawn_rows(parts, *given) for given in ((20, 0), (40, 0), (20, 1)))
    for drawn, size in ((few, 20), (more, 40), (other, 20)):
        assert drawn.count("train") == size
        assert all(one == part for one, part in zip(drawn, parts, strict=True) if part != "train")
    kept = [{place for place, name in enumerate(drawn) if name == "train"} for drawn in (few, more, other)]
    assert kept[0] < kept[1]
    assert kept[0] != kept[2]


def test_gains_are_over_the_same_seeds():
    drawn = [{"mcc": 0.5, "auroc": 0.8}, {"mcc": 0.7, "auroc": 0.8}]
    found = [{"mcc": 0.6, "auroc": 0.9}, {"mcc": 0.6, "auroc": 0.7}]
    wanted = "| 1,000 | pre-trained | 0.600 (0.000) | 0.800 | +0.000 | 1 of 2 | 1.5 min |"
    assert transfer.line_of(1000, "pre-trained", found, drawn, 90) == wanted
    assert transfer.line_of(1000, "drawn", drawn, drawn, 6).endswith("| 0.600 (0.141) | 0.800 |  |  | 0.1 min |")


def test_the_whole_of_it_on_a_toy_genome(tmp_path, monkeypatch, capsys):
    draw = random.Random(1)
    genome = "".join(draw.choice("ACGT") for _ in range(20_000))
    for folder in ("ecoli-k12", "ecoli-promoters-81"):
        (tmp_path / folder).mkdir()
    (tmp_path / transfer.GENOME).write_bytes(gzip.compress(f">toy one\n{genome}\n".encode()))
    begins = np.random.default_rng(0).integers(0, 9000, 80)
    rows = [f"r{number},{genome[begin : begin + 30]},{number % 2},x" for number, begin in enumerate(begins)]
    (tmp_path / transfer.ROWS).write_text("\n".join(["name,sequence,label,sigma", *rows]) + "\n")
    monkeypatch.setattr(transfer, "TRUNK", {"channels": 4, "stem_width": 5, "width": 3, "blocks": 1})
    given = [
        "--data",
        str(tmp_path),
        "--work",
        str(tmp_path / "work"),
        "--sizes",
        "20",
        "--seeds",
        "1",
        "--epochs",
        "1",
    ]
    transfer.main(given)
    told = capsys.readouterr().out
    assert "windows of 192, 1 epochs" in told
    assert [line.split(" | ")[1] for line in told.splitlines() if line.startswith("| 20 ")] == list(transfer.ARMS)
    transfer.main(given)
    assert capsys.readouterr().out == told

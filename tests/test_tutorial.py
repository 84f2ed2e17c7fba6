"""The tutorial's commands, parsed from the page, on the data that its script writes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pysam
import pytest
import torch

from tests.toys.variant_runs import ROOT, replisome_here

torch.set_num_threads(1)

TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|text|python)\n(.*?)```", TEXT, flags=re.DOTALL)


def commands(block: str) -> list[list[str]]:
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="module")
def followed(tmp_path_factory) -> tuple[Path, list[tuple[str, str]]]:
    """The folder after all commands, and each text or Python block with what was really printed."""
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "examples").symlink_to(ROOT / "examples")
    before, said, shown = Path.cwd(), "", []
    os.chdir(folder)
    try:
        for kind, block in BLOCKS:
            if kind == "bash":
                said = "".join(ran(words) for words in commands(block))
            elif kind == "text":
                shown.append((block, said))
            else:
                shown.append(("", ran([sys.executable, "-c", block])))
    finally:
        os.chdir(before)
    return folder, shown


def ran(words: list[str]) -> str:
    if words[0] == "replisome":
        quiet = [] if words[1] == "verify" else ["--progress", "none"]
        done = replisome_here(*words[1:], *quiet)
    else:
        program = sys.executable if words[0] == "python" else words[0]
        done = subprocess.run([program, *words[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
    return done.stdout


def test_the_commands_run_and_print_what_the_page_shows(followed):
    folder, shown = followed
    texts = [(block, said) for block, said in shown if block]
    assert len(texts) >= 6
    for block, said in texts:
        printed = [line.replace(f"{folder}/", "") for line in said.splitlines()]
        for line in block.splitlines():
            assert any(one.startswith(line) for one in printed), (line, printed)


def test_the_page_names_every_step(followed):
    verbs = [words[1] for kind, block in BLOCKS if kind == "bash" for words in commands(block) if len(words) > 1]
    order = [
        "ingest-sequences",
        "split-sequences",
        "train-model",
        "evaluate-model",
        "predict",
        "explain-model",
        "score-variants",
    ]
    assert [verb for verb in verbs if verb in order] == order


def test_the_model_learns_and_the_variants_in_sites_lose(followed):
    folder, _ = followed
    metrics = pl.read_parquet(folder / "evaluation" / "metrics.parquet")
    (accuracy,) = metrics.filter((pl.col("scope") == "all") & (pl.col("metric") == "accuracy"))["value"]
    assert accuracy > 0.85
    rows = pl.read_parquet(folder / "scored" / "data" / "**" / "*.parquet")
    effects = dict(rows.group_by("info_KIND").agg(pl.col("effect_bound").median()).rows())
    assert effects["site"] < -0.25
    assert abs(effects["outside"]) < 0.05
    with pysam.VariantFile(str(folder / "scored" / "scores.vcf.gz")) as vcf:
        found = [record.info["RPL_EFFECT_BOUND"][0] for record in vcf]
    assert found == pytest.approx(rows["effect_bound"].to_list(), abs=6e-5)


def test_the_planted_site_is_told_by_its_name(followed):
    folder, _ = followed
    matches = pl.read_parquet(folder / "explanations" / "motifs.parquet").sort("p_value", nulls_last=True)
    assert matches["name"][0] == "CREB1"
    assert matches["q_value"][0] < 1e-6


def test_the_data_are_the_same_every_time(followed, tmp_path):
    folder, _ = followed
    ran(["python", str(ROOT / "examples" / "tutorial" / "build.py"), str(tmp_path / "again")])
    for path in sorted((tmp_path / "again").iterdir()):
        if path.suffix != ".fai":
            assert path.read_bytes() == (folder / "data" / path.name).read_bytes()

"""What pre-training on a genome gains on a small labelled set of it: E. coli K-12, then promoter or not.

    python -m benchmarks.transfer --data FOLDER [--work transfer-work] [--sizes 100,300,1000] [--seeds 3] [--threads 1]

The genome is cut into windows, and a network is trained to tell hidden letters of them (task masked_tokens). Windows
that overlap a place of a test row's sequence, on either strand, are left out: no test letter is seen before. Then
networks of the same shape are trained on some rows of ecoli-promoters-81 with the same recipe, three ways on the same
split file: with drawn weights, from the pre-trained ones, and from those with the trunk frozen. Each seed draws other
training rows and weights; test and validation rows are always the same. Running it again goes on where it stopped.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/transfer.py`

from benchmarks.accuracy_sets._bench import QUIET
from benchmarks.accuracy_sets._sequences import read_csv
from engine.io.parquet import write_table
from engine.training._sequence_set import open_set
from jobs import _spec, ingest_sequences, train_model
from schemas import tables

GENOME = Path("ecoli-k12") / "GCF_000005845.2_ASM584v2_genomic.fna.gz"
ROWS = Path("ecoli-promoters-81") / "train.csv"
WINDOW_BP = 192
TESTED, VALIDATED = 0.25, 0.05
TRUNK = {"channels": 32, "stem_width": 9, "width": 5, "blocks": 3, "max_dilation": 4}
ARMS: Mapping[str, Mapping[str, Any]] = {
    "drawn": {},
    "pre-trained": {"init_from": True},
    "pre-trained, trunk frozen": {"init_from": True, "freeze": ["trunk"]},
}
_COMPLEMENT = str.maketrans("ACGT", "TGCA")


@dataclass(frozen=True)
class Place:
    """Where everything is and how it is run."""

    data: Path
    work: Path
    threads: int
    epochs: int

    def run(self, job: str, values: Mapping[str, Any], module: Any) -> float:
        """Run a job, or leave it where it is finished; CPU seconds it took when it ran."""
        output = Path(values["output"])
        clock = output.with_suffix(".cpu")
        begun = time.process_time()
        _, spec = _spec.build(_spec.Source(dict(values), "benchmarks/transfer.py", {}), job=job)
        is_finished = clock.is_file() and (output / "manifest.json").is_file()
        module.run(spec, QUIET)
        if not is_finished:
            clock.write_text(f"{time.process_time() - begun:.1f}\n")
        return float(clock.read_text())


def genome_of(path: Path) -> tuple[str, str]:
    """Name and letters of a FASTA of one contig."""
    header, *lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return header[1:].split()[0], "".join(lines).upper()


def windows_without(genome: str, sequences: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Windows side by side that share no letter with any place of the sequences, on either strand."""
    taken = np.zeros(len(genome), dtype=bool)
    for sequence in sequences:
        for text in (sequence, sequence.translate(_COMPLEMENT)[::-1]):
            begin = genome.find(text)
            while begin >= 0:
                taken[begin : begin + len(text)] = True
                begin = genome.find(text, begin + 1)
    for begin in range(0, len(genome) - WINDOW_BP + 1, WINDOW_BP):
        if not taken[begin : begin + WINDOW_BP].any():
            yield begin, begin + WINDOW_BP


def share_of(*words: object) -> float:
    """0 to 1 by SHA-256: the same wherever and whenever it is asked for."""
    return int(hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()[:12], 16) / 16**12


def part_of(sequence: str) -> str:
    """Equal sequences are never parted."""
    share = share_of(sequence)
    return "test" if share < TESTED else "validation" if share < TESTED + VALIDATED else "train"


def write_splits(folder: Path, path: Path, names: Sequence[str]) -> None:
    """A split for each record in order."""
    rows = [{"record": record, "id": str(record), "split": name} for record, name in enumerate(names)]
    facts = {"method": "sha256", "data_digest": open_set(str(folder)).digest}
    table = pa.Table.from_pylist(rows, tables.SPLITS)
    write_table(table, path, schema_name="splits", version=tables.SPLITS_VERSION, metadata=facts)


def pretrained(place: Place, tested: Sequence[str]) -> tuple[Path, str]:
    """The pre-trained model's run, and a line about it."""
    work = place.work
    contig, genome = genome_of(place.data / GENOME)
    windows = list(windows_without(genome, tested))
    (work / "genome.fa").write_text(f">{contig}\n{genome}\n")
    bed = "".join(f"{contig}\t{begin}\t{end}\t{number}\n" for number, (begin, end) in enumerate(windows))
    (work / "windows.bed").write_text(bed)
    source = {"input": {"path": str(work / "windows.bed")}, "windows": {"reference": str(work / "genome.fa")}}
    made = {**source, "cleaning": {"duplicates": "keep"}, "execution": {"workers": 1}, "output": str(work / "windows")}
    place.run("ingest_sequences", made, ingest_sequences)
    # The last tenth of the genome says how well hidden letters are told where nothing was learned.
    names = ["validation" if begin > 0.9 * len(genome) else "train" for begin, _ in windows]
    write_splits(work / "windows", work / "windows.parquet", names)
    seconds = place.run(
        "train_model",
        {
            "data": {"path": str(work / "windows"), "splits": str(work / "windows.parquet")},
            "task": {"name": "masked_tokens"},
            "model": {"name": "sequence_cnn", "params": {**TRUNK, "dropout": 0.0}},
            "augment": {"reverse_complement": True},
            "training": {"epochs": place.epochs, "batch_size": 64, "learning_rate": 0.002},
            "execution": {"threads": place.threads},
            "output": str(work / "pretrained"),
        },
        train_model,
    )
    metrics = json.loads((work / "pretrained" / "metrics.json").read_text())
    figures = metrics["figures"]["validation"]["metrics"]
    told = ", ".join(f"{name} {figures[name]['value']:.3f}" for name in ("perplexity", "accuracy"))
    line = f"{len(windows):,} windows of {WINDOW_BP}, {place.epochs} epochs, {seconds / 60:.1f} CPU minutes: {told}"
    return work / "pretrained" / "model", line


def tuned(place: Place, arm: str, model: Path, splits: Path, *, size: int, seed: int) -> tuple[Path, float]:
    """A network trained on `size` rows; its run, and its CPU seconds."""
    transfer = {**ARMS[arm], **({"init_from": str(model)} if "init_from" in ARMS[arm] else {})}
    output = place.work / f"{arm.replace(', ', '-').replace(' ', '-')}-{size}-{seed}"
    values = {
        "data": {"path": str(place.work / "rows"), "splits": str(splits)},
        "task": {"name": "sequence_classification"},
        "model": {"name": "sequence_cnn", "params": {**TRUNK, "pool": "place", "bin_width": 3, "dropout": 0.3}},
        "training": {
            "epochs": max(6, min(40, 9000 // size)),
            "batch_size": 32,
            "learning_rate": 0.001,
            "weight_decay": 0.05,
            "seed": seed,
        },
        "transfer": transfer,
        "execution": {"threads": place.threads},
        "output": str(output),
    }
    return output, place.run("train_model", values, train_model)


def figures_of(run: Path) -> dict[str, float]:
    """MCC and AUROC on the test rows."""
    figures = json.loads((run / "metrics.json").read_text())["figures"]["test"]["metrics"]
    return {name: figures[name]["value"] for name in ("mcc", "auroc")}


def compared(place: Place, sizes: Sequence[int], seeds: int, say: Callable[[str], None]) -> None:
    """Print the table, a line as soon as it is known."""
    place.work.mkdir(parents=True, exist_ok=True)
    rows = list(read_csv(place.data / ROWS))
    parts = [part_of(row["sequence"]) for row in rows]
    text = "id,sequence,label\n" + "".join(f"{n},{row['sequence']},{row['label']}\n" for n, row in enumerate(rows))
    (place.work / "rows.csv").write_text(text)
    values = {"input": {"path": str(place.work / "rows.csv")}, "output": str(place.work / "rows")}
    cleaning = {"cleaning": {"duplicates": "keep"}, "execution": {"workers": 1}}
    place.run("ingest_sequences", {**values, **cleaning}, ingest_sequences)
    tested = [row["sequence"] for row, part in zip(rows, parts, strict=True) if part == "test"]
    model, line = pretrained(place, tested)
    say(f"Pre-trained on {line}.")
    counts = {part: parts.count(part) for part in ("train", "validation", "test")}
    rest = f"{counts['validation']:,} validation, training rows drawn from {counts['train']:,}"
    say(f"Rows: {counts['test']:,} test, {rest}.\n")
    say("| training rows | weights | MCC (spread over seeds) | AUROC | MCC gained over drawn | seeds gained | CPU |")
    say("|---|---|---|---|---|---|---|")
    for size in sizes:
        found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
        spent = dict.fromkeys(ARMS, 0.0)
        for seed in range(seeds):
            splits = place.work / f"splits-{size}-{seed}.parquet"
            write_splits(place.work / "rows", splits, drawn_rows(parts, size, seed))
            for arm in ARMS:
                run, seconds = tuned(place, arm, model, splits, size=size, seed=seed)
                found[arm].append(figures_of(run))
                spent[arm] += seconds
        for arm in ARMS:
            say(line_of(size, arm, found[arm], found["drawn"], spent[arm]))


def drawn_rows(parts: Sequence[str], size: int, seed: int) -> list[str]:
    """Split of each row: `size` of the training rows stay, the others are unused."""
    places = [place for place, part in enumerate(parts) if part == "train"]
    kept = set(sorted(places, key=lambda place: share_of(seed, place))[:size])
    return ["unused" if part == "train" and place not in kept else part for place, part in enumerate(parts)]


def line_of(
    size: int, arm: str, found: Sequence[Mapping[str, float]], drawn: Sequence[Mapping[str, float]], seconds: float
) -> str:
    """A line of the table."""
    mcc, auroc = (np.array([one[name] for one in found]) for name in ("mcc", "auroc"))
    gained = mcc - np.array([one["mcc"] for one in drawn])
    spread = f" ({mcc.std(ddof=1):.3f})" if len(mcc) > 1 else ""
    gain = "" if arm == "drawn" else f"{gained.mean():+.3f}"
    won = "" if arm == "drawn" else f"{int((gained > 0).sum())} of {len(gained)}"
    cells = [f"{size:,}", arm, f"{mcc.mean():.3f}{spread}", f"{auroc.mean():.3f}", gain, won, f"{seconds / 60:.1f} min"]
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds ecoli-k12 and ecoli-promoters-81")
    parser.add_argument("--work", type=Path, default=Path("transfer-work"), help="where runs are kept")
    parser.add_argument("--sizes", default="100,300,1000", help="numbers of training rows, comma-separated")
    parser.add_argument("--seeds", type=int, default=3, help="how often each is trained")
    parser.add_argument("--epochs", type=int, default=2, help="of pre-training")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    place = Place(given.data, given.work, given.threads, given.epochs)
    compared(place, [int(size) for size in given.sizes.split(",")], given.seeds, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()

"""What the committed recipes reach on real sets, beside published figures and a simple floor.

    python -m benchmarks.accuracy --data FOLDER [--work accuracy-work] [--only NAME,NAME] [--threads 1] [--larger]

Each set of benchmarks/accuracy_sets goes through the jobs a user would run: an ingest job makes shards, rows are parted
by groups as the set's SOURCE.md says, and train_model trains the recipe of benchmarks/recipes. The figures are those of
the test rows, which neither training nor the choice of the epoch has seen. A small set is parted several times, so that
every row is tested once; its figure is over all of them. Running it again goes on where it stopped.

Intervals are 95% bootstrap intervals over the groups that are not parted, or over samples where a set has none.
Published figures are those of SOURCE.md, on other held-out rows of the same sets. The floor is a simple model on the
same rows as ours: for sequences, logistic or ridge regression on one-hot letters and counts of 5-mers. CPU is the
processor time of the training runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/accuracy.py`

from benchmarks.accuracy_sets._bench import HEADER, QUIET, Bench, all_benches
from jobs import _spec, train_model

RECIPES = Path(__file__).parent / "recipes"
_CPU = "cpu-{}.txt"


def train(name: str, set_folder: Path, splits: Path, output: Path, settings: Sequence[str]) -> None:
    """The recipe on one parting."""
    source = _spec.read_file(RECIPES / f"{name}.yaml")
    places = {"data.path": set_folder, "data.splits": splits, "output": output}
    named = [f"{key}={json.dumps(str(value))}" for key, value in places.items()]
    _, spec = _spec.build(_spec.apply_settings(source, [*named, *settings]), job="train_model")
    train_model.run(spec, QUIET)  # type: ignore[arg-type]


def run_set(bench: Bench, data: Path, work: Path, *, rounds: int, settings: Sequence[str]) -> list[str]:
    """Lines of the table for a set, from however many partings."""
    prepared = bench.prepare(data, work)
    runs: list[Path] = []
    seconds = 0.0
    for number in range(min(bench.rounds, rounds)):
        splits, run, clock = work / f"splits-{number}.parquet", work / f"round-{number}", work / _CPU.format(number)
        is_finished = clock.is_file() and (run / "manifest.json").is_file()
        if not is_finished:
            prepared.write_split(number, splits)
        begun = time.process_time()
        train(bench.name, prepared.folder, splits, run, settings)
        if not is_finished:
            clock.write_text(f"{time.process_time() - begun:.1f}\n")
        seconds += float(clock.read_text())
        runs.append(run)
    lines = [figure.told(bench.name) for figure in prepared.figures(runs)]
    spent = f"{seconds / 60:.1f} min"
    return [f"{line} {spent if number == 0 else 'with the first'} |" for number, line in enumerate(lines)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds uci-splice, gue and the others")
    parser.add_argument("--work", type=Path, default=Path("accuracy-work"), help="where runs are kept")
    parser.add_argument("--only", default="", help="names of recipes, comma-separated")
    parser.add_argument("--larger", action="store_true", help="those recipes too that take long")
    parser.add_argument("--rounds", type=int, default=15, help="most partings of a set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipes")
    given = parser.parse_args(arguments)
    benches = all_benches()
    only = [name for name in given.only.split(",") if name]
    if unknown := set(only) - {bench.name for bench in benches}:
        parser.error(f"no set named {sorted(unknown)[0]!r}; known: {', '.join(bench.name for bench in benches)}")
    chosen = [bench for bench in benches if (bench.name in only if only else given.larger or not bench.larger)]
    settings = [f"execution.threads={given.threads}", *given.set]
    print(HEADER, flush=True)
    for bench in chosen:
        lines = run_set(bench, given.data, given.work / bench.name, rounds=given.rounds, settings=settings)
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()

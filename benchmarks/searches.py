"""Searches killed and resumed on a real set: each must come to the bytes of the calm one, on one split file.

    python -m benchmarks.searches --data FOLDER [--work searches-work] [--kills 3] [--every 1] [--only "NAME;NAME"]

FOLDER holds ecoli-promoters-81 (train.csv), which goes through the commands a user would run: ingest-sequences,
split-sequences, tune-model. Every search runs once calmly, one trial at a time in one process, and once with its driver
killed by SIGKILL some times, spread over its epochs, and the same command given again after each.
Trials of the second may run two at once, by processes or by Ray Tune. Compared are the bytes of the manifest (which
seals every file that holds no time), the table of trials and best.yaml, and that every trial's run was made with the
one split file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/searches.py`

from engine.io.parquet import read_table

COMMAND = [sys.executable, "-c", "from jobs.cli import main; main()"]
SAME = ("manifest.json", "trials.parquet", "best.yaml")
SPEC = """
job: tune_model
data: {path: WORK/set, splits: WORK/splits.parquet}
task: {name: sequence_classification}
model: {name: sequence_cnn, params: {channels: 16, stem_width: 9, width: 5, blocks: 1, pool: place, dropout: 0.3}}
training: {epochs: 3, batch_size: 64, learning_rate: 0.002, monitor: mcc}
execution: {checkpoint_steps: 20}
search:
SEARCH
output: out
"""
DRAWN = """
  training.learning_rate: {log_uniform: [0.0003, 0.01]}
  training.weight_decay: {log_uniform: [0.001, 0.2]}
  model.params.dropout: {uniform: [0.0, 0.5]}
"""
LISTED = """
  training.learning_rate: {choice: [0.001, 0.005]}
  model.params.channels: {choice: [8, 16]}
"""
TWO, TUNE = "execution.parallel_trials=2", "execution.executor=ray"


@dataclass(frozen=True)
class Search:
    """Attributes:
    name: in the table.
    tuning: section of the spec.
    keys: what is searched.
    killed: settings of the run that is killed.
    told: where that run's trials run.
    """

    name: str
    tuning: str
    keys: str
    killed: tuple[str, ...] = ()
    told: str = "one process"


ASHA = "trials: 6, stopping: asha, factor: 2, ahead: 2"
SEARCHES = (
    Search("grid", "{method: grid}", LISTED),
    Search("random", "{method: random, trials: 5}", DRAWN, (TWO,), "2 processes"),
    Search("bayesian", "{method: bayesian, trials: 12}", DRAWN),
    Search("random, ASHA", f"{{method: random, {ASHA}}}", DRAWN, (TWO,), "2 processes"),
    Search("bayesian, ASHA", f"{{method: bayesian, {ASHA}}}", DRAWN, (TWO, TUNE), "Ray Tune, 2 at once"),
    Search("bayesian, 2 ahead", "{method: bayesian, trials: 12, ahead: 2}", DRAWN, (TWO, TUNE), "Ray Tune, 2 at once"),
)
HEADS = (
    "search",
    "trials",
    "calm, one process, s",
    "killed run",
    "kills: trials ended (epochs done) at each",
    "same bytes",
    "one split file",
)


def command(*words: str) -> subprocess.Popen[bytes]:
    """Started, silent but for errors."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen([*COMMAND, *words, "--progress", "none"], env=environment, stdout=subprocess.DEVNULL)


def ran(*words: str) -> float:
    """Seconds of a command that must end well."""
    begun = time.monotonic()
    if command(*words).wait() != 0:
        raise SystemExit(f"failed: replisome {' '.join(words)}")
    return time.monotonic() - begun


def make_set(data: Path, work: Path, every: int) -> None:
    """The set, of every so-many-th row, and the split file that all searches share."""
    if (work / "splits.parquet").is_file():
        return
    head, *rows = (data / "ecoli-promoters-81" / "train.csv").read_text().splitlines(keepends=True)
    table = work / "rows.csv"
    table.write_text("".join([head, *rows[::every]]))
    ran("ingest-sequences", str(table), "--id", "name", "-o", str(work / "set"))
    ran("split-sequences", str(work / "set"), "-o", str(work / "splits.parquet"))


def epochs_done(output: Path) -> int:
    """Of all trials, by their logs; those done again count again."""
    return sum(path.read_text().count(", epoch ") for path in (output / "trials").glob("*/run.log"))


def killed_run(words: Sequence[str], output: Path, *, epochs: int, kills: int) -> list[str]:
    """Run with so many kills of the driver, spread over the epochs; where the search stood at each."""
    stood = []
    for number in range(kills):
        driver = command(*words)
        wanted = epochs_done(output) + max(1, (epochs * (number + 1)) // (kills + 1) - epochs_done(output))
        while driver.poll() is None and epochs_done(output) < wanted:
            time.sleep(0.05)
        time.sleep(0.2)  # into the next epoch
        driver.send_signal(signal.SIGKILL)
        if driver.wait() == 0:
            break  # it was quicker
        stood.append(f"{len(list((output / 'trials').glob('*.json')))} ({epochs_done(output)})")
    ran(*words)
    return stood


def of_one_split(output: Path, splits: Path) -> bool:
    """Whether every trial, by its own run.json and by the table, was made with this file."""
    digest = hashlib.sha256(splits.read_bytes()).hexdigest()
    runs = [json.loads(path.read_text())["key"]["splits"] for path in output.glob("trials/*/run.json")]
    table = read_table(output / "trials.parquet")["splits"].to_pylist()
    return set(runs) == set(table) == {digest} and len(runs) == len(table)


def line_of(search: Search, work: Path, kills: int) -> str:
    """A line of the table."""
    spec = work / f"{search.name}.yaml".replace(", ", "-").replace(" ", "-")
    spec.write_text(SPEC.replace("WORK", str(work)).replace("SEARCH", search.keys.strip("\n")))
    calm, killed = spec.with_suffix(""), spec.with_suffix(".killed")
    shutil.rmtree(calm, ignore_errors=True)
    shutil.rmtree(killed, ignore_errors=True)
    words = ["run", str(spec), "--set", f"tuning={search.tuning}", "--set"]
    calm_s = ran(*words, f"output={calm}")
    wider = [word for setting in search.killed for word in ("--set", setting)]
    stood = killed_run([*words, f"output={killed}", *wider], killed, epochs=epochs_done(calm), kills=kills)
    same = all((calm / name).read_bytes() == (killed / name).read_bytes() for name in SAME)
    one_split = of_one_split(calm, work / "splits.parquet") and of_one_split(killed, work / "splits.parquet")
    rows = read_table(killed / "trials.parquet").to_pylist()
    (best,) = [row for row in rows if row["is_best"]]
    cells = [
        search.name,
        f"{len(rows)} ({sum(row['epochs'] for row in rows)} epochs)",
        f"{calm_s:.0f}",
        search.told,
        f"{len(stood)}: {', '.join(stood)}",
        "yes" if same else "NO",
        "yes" if one_split else "NO",
        f"{best['trial']}: {best['value']:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; it ends with code 1 where bytes differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds ecoli-promoters-81")
    parser.add_argument("--work", type=Path, default=Path("searches-work"), help="where runs are kept")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="train on every so-many-th row, to be quick")
    parser.add_argument("--only", default="", help="names of searches, with ; between them")
    given = parser.parse_args(arguments)
    work = given.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    make_set(given.data, work, given.every)
    chosen = [search for search in SEARCHES if not given.only or search.name in given.only.split(";")]
    print(f"| {' | '.join((*HEADS, 'best trial, MCC'))} |\n{'|---' * (len(HEADS) + 1)}|", flush=True)
    lines = []
    for search in chosen:
        lines.append(line_of(search, work, given.kills))
        print(lines[-1], flush=True)
    if any("NO" in line for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

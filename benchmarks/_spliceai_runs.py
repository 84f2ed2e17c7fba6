"""Running both tools for the comparison: the peer's environment, their commands, and what a command costs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import _spliceai_compare as compare
from benchmarks import _spliceai_variants as variants

ROOT = Path(__file__).parents[1]
# SpliceAI needs pkg_resources, which later setuptools lack, and np.fromstring of binary text, which later numpy lacks.
PACKAGES = ("spliceai==1.3.1", "tensorflow-cpu", "numpy<2.3", "setuptools<70")
PEER_MODE = "spliceai-1.3.1"
_ENGINE = (sys.executable, "-c", "from jobs.cli import main; main()")
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_TF_ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", **_ONE_THREAD}


@dataclass(frozen=True)
class Cost:
    """Wall seconds of a command, and CPU seconds of it and of all that it waited for."""

    wall_s: float
    cpu_s: float

    def less(self, other: Cost, *, per: int) -> Cost:
        """What is left beyond `other`, for each of `per` things."""
        return Cost((self.wall_s - other.wall_s) / per, (self.cpu_s - other.cpu_s) / per)


@dataclass(frozen=True)
class Inputs:
    """A set of variants with its genome."""

    name: str
    genome: variants.Genome
    sites: Sequence[variants.Site]
    vcf: Path
    reference: Path
    genes: Path


@dataclass(frozen=True)
class EngineOptions:
    """What differs between our runs."""

    distance: int = 50
    mask: int = 0
    workers: int = 2
    records_per_shard: int = 1000
    incremental: bool = True
    precision: str = "fp32"


@dataclass(frozen=True)
class EngineRows:
    """A run's table: numbers by (record, ALT, gene), the flags of each, and what stands of the ALTs without numbers."""

    answers: dict[compare.Key, compare.Answer]
    flags: dict[compare.Key, str]
    states: dict[tuple[str, str], str]


@dataclass
class PeerRows:
    """The peer's numbers at one distance and mask, its dots and its silence, and winners in its raw outputs."""

    answers: dict[compare.Key, compare.Answer] = field(default_factory=dict)
    raw: dict[compare.Key, list[compare.Winner]] = field(default_factory=dict)
    silences: list[compare.Silence] = field(default_factory=list)


class Peer:
    """SpliceAI in an environment of its own below the work folder."""

    def __init__(self, work: Path) -> None:
        self._env = work / "env"
        self.model = work / "model"

    @property
    def python(self) -> Path:
        return self._env / "bin" / "python"

    @property
    def package(self) -> Path:
        """The folder of the installed package, found without importing it."""
        body = "import importlib.util as u; print(u.find_spec('spliceai').submodule_search_locations[0])"
        found = subprocess.run([self.python, "-c", body], capture_output=True, text=True, check=True)
        return Path(found.stdout.strip())

    @property
    def table(self) -> Path:
        """SpliceAI's own annotation of GRCh38."""
        return self.package / "annotations" / "grch38.txt"

    def prepare(self) -> None:
        """Make the environment and import the weights, each unless it is there."""
        if not self.python.exists() or self._asked("import spliceai") != 0:
            print(f"installing {', '.join(PACKAGES)} into {self._env} ...", flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", self._env], check=True)
            pip = [self.python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-q"]
            subprocess.run([*pip, *PACKAGES], check=True)
        if not (self.model / "replisome.json").exists():
            words = ("models", "import", "spliceai", "--from", self.package, "--accept-licence", "-o", self.model)
            subprocess.run([*_ENGINE, *map(str, words)], check=True, cwd=ROOT)

    def _asked(self, body: str) -> int:
        return subprocess.run([self.python, "-c", body], capture_output=True).returncode

    def versions(self) -> str:
        """Of the tool and of what computes for it."""
        body = (
            "from importlib.metadata import version as v; "
            "print(', '.join(f'{n} {v(n)}' for n in ('spliceai', 'tensorflow-cpu', 'keras', 'numpy')))"
        )
        return subprocess.run([self.python, "-c", body], capture_output=True, text=True, check=True).stdout.strip()

    def command(self, inputs: Inputs, out: Path, *, distance: int, mask: int) -> list[str]:
        """The tool as its users call it."""
        words = ("-I", inputs.vcf, "-O", out, "-R", inputs.reference, "-A", inputs.genes, "-D", distance, "-M", mask)
        return [str(self._env / "bin" / "spliceai"), *map(str, words)]

    def texts(self, inputs: Inputs, out: Path, *, distance: int, mask: int) -> dict[str, list[str]]:
        """Entries of each record as the tool's own output file has them."""
        timed(self.command(inputs, out, distance=distance, mask=mask), log=out.with_suffix(".log"), env=peer_env())
        return dict(read_peer_vcf(out))

    def answers(self, inputs: Inputs, folder: Path, distances: Sequence[int]) -> Path:
        """Texts and raw outputs of all distances and both masks by `_spliceai_peer.py`, in two processes of one thread.

        What is there from the same inputs is taken as it is.
        """
        key = hashlib.sha256()
        for path in (inputs.vcf, inputs.reference, inputs.genes, ROOT / "benchmarks" / "_spliceai_peer.py"):
            key.update(path.read_bytes())
        key.update(json.dumps([list(distances), self.versions()]).encode())
        place = folder / f"peer-{key.hexdigest()[:16]}"
        if (place / "done").exists():
            print(f"peer's answers to {inputs.name}: taken from {place}", flush=True)
            return place
        place.mkdir(parents=True, exist_ok=True)
        script = ROOT / "benchmarks" / "_spliceai_peer.py"
        running = []
        for part in range(2):
            # -P: beside the script lies spliceai.py, which is not the package.
            words = (self.python, "-P", script, inputs.vcf, inputs.reference, inputs.genes, place / f"part{part}")
            options = ("--distances", *distances, "--part", part, 2)
            log = (place / f"part{part}.log").open("wb")
            environment = {**peer_env(), **_TF_ONE_THREAD}
            running.append(
                (log.name, subprocess.Popen([*map(str, words + options)], stdout=log, stderr=log, env=environment))
            )
        for name, process in running:
            if process.wait():
                raise SystemExit(f"SpliceAI ended with code {process.returncode}: see {name}")
        (place / "done").touch()
        return place


def peer_env() -> dict[str, str]:
    """The environment of the tool: quiet, threads as it likes them."""
    kept = {name: value for name, value in os.environ.items() if name not in _ONE_THREAD}
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONWARNINGS": "ignore"}


def timed(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end; its output goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=env, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = log.read_text(errors="replace")[-2000:]
        raise SystemExit(f"{Path(command[0]).name} ended with code {process.returncode}:\n{tail}")
    return Cost(wall, usage.ru_utime + usage.ru_stime)


def engine_command(model: Path, inputs: Inputs, out: Path, options: EngineOptions) -> list[str]:
    """Our command in the compatibility mode."""
    words: list[Any] = [
        *_ENGINE,
        *("score-variants", inputs.vcf, "--reference", inputs.reference, "--genes", inputs.genes),
        *("--model", model, "-o", out, "--compatibility", PEER_MODE, "--distance", options.distance),
        *("--workers", options.workers, "--records-per-shard", options.records_per_shard),
        *("--precision", options.precision, "--max-rejects", 1, "--progress", "none"),
    ]
    words += ["--mask"] if options.mask else []
    words += [] if options.incremental else ["--no-incremental"]
    return [*map(str, words)]


def run_engine(model: Path, inputs: Inputs, out: Path, options: EngineOptions) -> Cost:
    """Score a set anew."""
    shutil.rmtree(out, ignore_errors=True)
    environment = {**os.environ, **_ONE_THREAD}
    return timed(engine_command(model, inputs, out, options), log=out.with_name(f"{out.name}.log"), env=environment)


def read_engine(out: Path) -> EngineRows:
    """The table of a finished run."""
    parts = sorted((out / "data").glob("**/part-*.parquet"))
    table = pa.concat_tables([pq.read_table(part, partitioning=None) for part in parts])
    rows = EngineRows({}, {}, {})
    for row in table.to_pylist():
        place = row["id"], row["alt"] or "."
        if row["state"] != "scored":
            rows.states.setdefault(place, f"{row['state']}: {row['reason']}")
            continue
        key = (*place, row["gene_symbol"])
        names = [name.lower() for name in compare.NAMES]
        deltas = tuple(float(row[f"ds_{name}"]) for name in names)
        rows.answers[key] = compare.Answer(deltas, tuple(int(row[f"dp_{name}"]) for name in names))
        rows.flags[key] = row["flags"]
        rows.states[place] = "scored"
    return rows


def read_peer_vcf(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(ID, entries of the tag SpliceAI) of every record."""
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            columns = line.split("\t")
            tags = [one[len("SpliceAI=") :] for one in columns[7].split(";") if one.startswith("SpliceAI=")]
            yield columns[2], tags[0].split(",") if tags else []


def read_peer_lines(place: Path) -> list[dict[str, Any]]:
    """What `_spliceai_peer.py` wrote, of all parts."""
    return [json.loads(line) for part in sorted(place.glob("part*.jsonl")) for line in part.read_text().splitlines()]


def read_peer_arrays(place: Path) -> dict[str, Any]:
    """Its windows and raw outputs by name."""
    arrays: dict[str, Any] = {}
    for part in sorted(place.glob("part*.npz")):
        with np.load(part) as found:
            arrays.update({name: found[name] for name in found.files})
    return arrays


def peer_rows(
    inputs: Inputs, lines: Iterable[Mapping[str, Any]], arrays: Mapping[str, Any], *, distance: int, mask: int
) -> PeerRows:
    """Sort what the peer said at one distance and mask."""
    strands = {gene.name: gene.strand for gene in inputs.genome.genes}
    by_id = {variants.site_id(number): site for number, site in enumerate(inputs.sites, 1)}
    found = PeerRows()
    for line in lines:
        if (line["distance"], line["mask"]) != (distance, mask):
            continue
        site, record = by_id[line["id"]], line["id"]
        answered: set[str] = set()
        prefix = f"{record}|{distance}"
        pairs = iter(arrays[f"{prefix}|pairs"])
        for text in line["scores"]:
            alt, gene, answer = compare.read_entry(text)
            answered.add(alt)
            if answer is None:
                found.silences.append(compare.Silence(record, alt, "gives dots"))
                continue
            ref, other = (arrays[f"{prefix}|{number}|output"] for number in next(pairs))
            key = (record, alt, gene)
            found.answers[key] = answer
            found.raw[key] = compare.winners(ref, other, strand=strands[gene], num_ref=len(site.ref), num_alt=len(alt))
        words = f"skips the record ({', '.join(line['warnings'])})" if line["warnings"] else "says nothing"
        found.silences += [compare.Silence(record, alt, words) for alt in site.alts or (".",) if alt not in answered]
    return found

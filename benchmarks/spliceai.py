"""SpliceAI 1.3.1 and this engine on the same weights, variants and cores, in one run: are they equal, and how fast.

    python -m benchmarks.spliceai --data FOLDER --work WORK [prepare|parity|speed|all] [--quick]

FOLDER is the data folder with chr9:1-1,000,000 of GRCh38. WORK takes SpliceAI's own environment (from PyPI), the model
folder imported from its weights, and every file of the run; by asking for this you accept SpliceAI's licence for its
weights (CC BY-NC 4.0). Nothing of the tool, its weights or its scores belongs into the repository.

Parity: SpliceAI's own `get_delta_scores` on every record at distances 50 and 500 and masks 0 and 1, and its command on
some of them, whose texts must be the same; our command in the mode spliceai-1.3.1; its raw outputs against ours.
Speed: both commands as users run them, two sizes each, so that start-up drops out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/spliceai.py`

from benchmarks import _spliceai_compare as compare
from benchmarks import _spliceai_real as real
from benchmarks import _spliceai_runs as runs
from benchmarks import _spliceai_speed as speed
from benchmarks import _spliceai_variants as variants

SEED = 20
DISTANCES = (50, 500)
MAX_FAULTS_SHOWN = 40
PARITY_HEADER = (
    *("set", "distance", "mask", "pairs", "largest difference", "same text", "positions", "close calls"),
    *("unscored", "verdict"),
)


@dataclass(frozen=True)
class PeerSide:
    """What SpliceAI says of a set: texts by record, distance and mask, windows and raw outputs."""

    lines: list[dict[str, Any]]
    arrays: dict[str, Any]

    def rows(self, inputs: runs.Inputs, distance: int, mask: int) -> runs.PeerRows:
        return runs.peer_rows(inputs, self.lines, self.arrays, distance=distance, mask=mask)


def sets(peer: runs.Peer, data: Path, work: Path, *, quick: bool) -> list[runs.Inputs]:
    """Made-up and real variants, written below the work folder."""
    made_up, chr9 = variants.made_up_genome(SEED), real.real_genome(data, peer.table)
    every = {
        "made-up": (made_up, variants.made_up_sites(made_up, SEED)),
        "real": (chr9, real.real_sites(chr9, SEED)),
    }
    return [
        speed.write(name, genome, sites[:: 12 if quick else 1], work / name) for name, (genome, sites) in every.items()
    ]


def parity(peer: runs.Peer, data: Path, work: Path, *, quick: bool) -> bool:
    """Print the tables; whether all agree."""
    rows, faults, states, counts, holds = [], [], Counter(), [], True
    for inputs in sets(peer, data, work, quick=quick):
        place = peer.answers(inputs, work, DISTANCES)
        side = PeerSide(runs.read_peer_lines(place), runs.read_peer_arrays(place))
        for distance in DISTANCES:
            for mask in (0, 1):
                found = one_parity(peer, inputs, side, work, runs.EngineOptions(distance=distance, mask=mask))
                rows.append(_parity_row(inputs.name, distance, mask, found))
                faults += [f"{inputs.name}, distance {distance}, mask {mask}: {fault}" for fault in found.faults]
                if mask == 0:
                    states.update(found.states)
        counts.append((inputs, side))
        holds = _check_command(peer, inputs, side, work) and holds
        holds = _check_raw(peer, inputs, side) and holds
    print("\n" + compare.markdown(PARITY_HEADER, rows))
    print("\nWhat one of the two leaves out (distances 50 and 500, mask 0):\n")
    print(
        compare.markdown(("SpliceAI", "replisome", "ALTs or pairs"), [(*key, n) for key, n in sorted(states.items())])
    )
    print("\n" + _coverage(counts))
    for line in _shown(faults):
        print(line)
    _bf16(peer, counts, work)
    return holds and not faults


def one_parity(
    peer: runs.Peer, inputs: runs.Inputs, side: PeerSide, work: Path, options: runs.EngineOptions
) -> compare.Parity:
    """Our run of a set against the peer's answers."""
    out = work / "engine" / f"{inputs.name}-{options.distance}-{options.mask}-{options.precision}"
    runs.run_engine(peer.model, inputs, out, options)
    ours, theirs = runs.read_engine(out), side.rows(inputs, options.distance, options.mask)
    found = compare.compare_numbers(ours.answers, theirs.answers, theirs.raw, states=ours.states)
    compare.compare_silence(found, theirs.silences, ours.states)
    return found


def _parity_row(name: str, distance: int, mask: int, found: compare.Parity) -> list[object]:
    equal, others = found.other_positions
    return [
        *(name, distance, mask, found.pairs, f"{found.largest:.5f}"),
        f"{found.equal_text} of {4 * found.pairs}",
        f"{found.positions} compared",
        f"{equal} of {others} equal",
        sum(found.states.values()),
        "equal" if found.holds else f"{len(found.faults)} differ",
    ]


def _check_command(peer: runs.Peer, inputs: runs.Inputs, side: PeerSide, work: Path, *, num: int = 6) -> bool:
    """The tool's command must write the texts that its function gave; on some records of every kind."""
    folder = work / "command" / inputs.name
    folder.mkdir(parents=True, exist_ok=True)
    ids = [variants.site_id(number) for number in range(1, len(inputs.sites) + 1)][:: max(1, len(inputs.sites) // num)]
    lines = inputs.vcf.read_text().splitlines()
    kept = [line for line in lines if line.startswith("#") or line.split("\t")[2] in ids]
    few = replace(inputs, vcf=folder / "in.vcf")
    few.vcf.write_text("\n".join(kept) + "\n")
    differing = compared = 0
    for distance in DISTANCES:
        for mask in (0, 1) if distance == DISTANCES[0] else (1,):
            texts = peer.texts(few, folder / f"out-{distance}-{mask}.vcf", distance=distance, mask=mask)
            for line in side.lines:
                if line["id"] in texts and (line["distance"], line["mask"]) == (distance, mask):
                    compared += 1
                    differing += texts[line["id"]] != line["scores"]
    print(f"{inputs.name}: the command `spliceai` gives other texts than its function for {differing} of {compared}")
    return differing == 0


def _check_raw(peer: runs.Peer, inputs: runs.Inputs, side: PeerSide, *, num: int = 40) -> bool:
    """Largest difference of probabilities between the peer's networks and ours, on windows of every length."""
    import torch

    from engine.models._info import open_model
    from engine.scoring._predictor import Predictor

    torch.set_num_threads(2)
    info = open_model(peer.model)
    predictor = Predictor(info)
    head = next(head for head in info.heads.values() if {"acceptor", "donor"} <= set(head.channels))
    columns = [head.channels.index("acceptor"), head.channels.index("donor")]
    names = sorted(name.removesuffix("|window") for name in side.arrays if name.endswith("|window"))
    names = [names[index] for index in np.linspace(0, len(names) - 1, min(num, len(names))).astype(int)]
    largest, highest = 0.0, 0.0
    for name in names:
        (ours,) = predictor.predict([side.arrays[f"{name}|window"]], heads=[head.name])
        theirs = side.arrays[f"{name}|output"][:, 1:].T
        largest = max(largest, float(np.abs(ours[head.name][columns] - theirs).max()))
        highest = max(highest, float(theirs.max()))
    print(
        f"{inputs.name}: raw outputs of {len(names)} windows differ by {largest:.1e} at most (probabilities up to "
        f"{highest:.2f}; allowed {compare.MAX_RAW:.0e})",
        flush=True,
    )
    return largest <= compare.MAX_RAW


def _coverage(found: Sequence[tuple[runs.Inputs, PeerSide]]) -> str:
    """How many variants move a site, by the peer's text; and what the records are."""
    rows = []
    for inputs, side in found:
        answers = side.rows(inputs, 50, 0).answers
        best: dict[tuple[str, str], compare.Answer] = {}
        for (record, alt, _), answer in answers.items():
            former = best.get((record, alt))
            if former is None or max(answer.deltas) > max(former.deltas):
                best[record, alt] = answer
        counts = compare.large_counts(best.values())
        strands = Counter(_strand(inputs, gene) for _, _, gene in answers)
        rows.append(
            [inputs.name, len(inputs.sites), len(answers), *counts.values(), f"{strands['+']} / {strands['-']}"]
        )
    title = (
        "set",
        "records",
        "pairs",
        *(f"{name} >= {compare.LARGE}" for name in ("largest", *compare.NAMES)),
        "+ / -",
    )
    return f"Variants by SpliceAI's delta at distance 50, mask 0:\n\n{compare.markdown(title, rows)}"


def _strand(inputs: runs.Inputs, gene: str) -> str:
    return next(one.strand for one in inputs.genome.genes if one.name == gene)


def _shown(faults: Sequence[str]) -> Iterator[str]:
    if faults:
        yield f"\n{len(faults)} disagreements:\n"
    yield from (f"- {fault}" for fault in faults[:MAX_FAULTS_SHOWN])
    if len(faults) > MAX_FAULTS_SHOWN:
        yield f"- and {len(faults) - MAX_FAULTS_SHOWN} more"


def _bf16(peer: runs.Peer, found: Iterable[tuple[runs.Inputs, PeerSide]], work: Path) -> None:
    """What bf16 does to deltas, distance 50, mask 0."""
    rows = []
    for inputs, _ in found:
        plain = runs.read_engine(work / "engine" / f"{inputs.name}-50-0-fp32").answers
        out = work / "engine" / f"{inputs.name}-50-0-bf16"
        runs.run_engine(peer.model, inputs, out, runs.EngineOptions(precision="bf16"))
        rows.append([inputs.name, *_differences(plain, runs.read_engine(out).answers)])
    title = (
        "set",
        "deltas",
        "mean difference",
        "99th percentile",
        "largest",
        "beyond 0.01",
        "calls at 0.2 that change",
    )
    print(f"\nbf16 against fp32, distance 50, mask 0:\n\n{compare.markdown(title, rows)}")


def _differences(
    one: Mapping[compare.Key, compare.Answer], other: Mapping[compare.Key, compare.Answer]
) -> list[object]:
    before = np.array([one[key].deltas for key in one])
    after = np.array([other[key].deltas for key in one])
    change = np.abs(before - after).ravel()
    calls = int(((before >= compare.LARGE) != (after >= compare.LARGE)).sum())
    figures = (change.mean(), np.percentile(change, 99), change.max())
    return [change.size, *(f"{value:.5f}" for value in figures), int((change > compare.MAX_DELTA).sum()), calls]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", nargs="?", default="all", choices=("prepare", "parity", "speed", "all", "stage"))
    parser.add_argument("facts", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help="folder of chr9:1-1,000,000")
    parser.add_argument("--work", type=Path, help="folder for the peer, the model and all files of the run")
    parser.add_argument("--quick", action="store_true", help="a twelfth of the variants, in a few minutes")
    given = parser.parse_args()
    if given.verb == "stage":
        print(json.dumps(speed.stage(json.loads(given.facts))))
        return
    if given.work is None or (given.data is None and given.verb != "prepare"):
        parser.error("--work is needed, and --data for all but prepare")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    peer = runs.Peer(work)
    peer.prepare()
    holds = True
    if given.verb != "prepare":
        print(f"{peer.versions()}; two cores\n", flush=True)
    if given.verb in ("parity", "all"):
        print("## Parity\n")
        holds = parity(peer, given.data, work, quick=given.quick)
    if given.verb in ("speed", "all"):
        print("\n## Speed\n", flush=True)
        genome = real.real_genome(given.data, peer.table)
        for text in speed.lines(peer, genome, work, quick=given.quick):
            print(text, flush=True)
    raise SystemExit(0 if holds else 1)


if __name__ == "__main__":
    main()

"""The command score-variants on the toy genome: as a user runs it, in a process of its own, or within the test.

replisome(*workspace.arguments(output))          # a process of its own, seconds
replisome_here(*workspace.arguments(output))     # the same words through the same command, no process: quick
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pysam

from engine.io.source import Shard
from engine.runtime.executors import in_process
from engine.runtime.parts import PartPublisher
from engine.runtime.receipts import Receipt
from engine.runtime.stages import Stages
from engine.storage import faults
from jobs import cli
from tests.toys import genome
from tests.toys.models import splice_motifs

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from jobs.cli import main; main()"]
SAMPLE_NAMES = ("S0", "S1")


@dataclass(frozen=True)
class Workspace:
    """Everything a run needs, in one folder."""

    folder: Path
    toy: genome.ToyGenome
    vcf: Path
    hostile_vcf: Path
    model: Path

    def arguments(self, output: Path, *, vcf: Path | None = None, scorer: str = "gc_change") -> list[str]:
        """score-variants with shards small enough to be several."""
        return [
            *("score-variants", str(vcf or self.hostile_vcf), "--reference", str(self.toy.fasta)),
            *("--genes", str(self.toy.ensembl_gtf), "--model", str(self.model), "--scorer", scorer),
            *("-o", str(output), "--records-per-shard", "60", "--max-rejects", "1", "--progress", "none"),
        ]


def make_workspace(folder: Path) -> Workspace:
    """A genome, a VCF of good records, one with every bad record and line in its place, a model with known answers."""
    folder.mkdir(parents=True, exist_ok=True)
    toy = genome.make_genome(folder)
    splice_motifs(folder / "model")
    order = {contig: index for index, contig in enumerate(toy.contigs)}
    good = [*genome.toy_records(toy), *genome.random_records(toy, 300)]
    good.sort(key=lambda record: (order[record.contig], record.pos))
    fitting = sorted([*good, *genome.bad_records(toy)], key=lambda record: (order[record.contig], record.pos))
    place = sum(record.contig == fitting[0].contig and record.pos <= 1601 for record in fitting)
    broken = [line + "\tGT:DP\t0/1:3\t0/1:4" * (line.count("\t") > 5) for _, line in genome.broken_lines(toy)]
    hostile = [*fitting[:place], *broken, *fitting[place:]]
    vcf = genome.write_vcf(folder / "in.vcf.gz", good, toy, num_samples=len(SAMPLE_NAMES))
    pysam.tabix_index(str(vcf), preset="vcf", force=True)
    bad = genome.write_vcf(folder / "hostile.vcf.gz", hostile, toy, num_samples=len(SAMPLE_NAMES))
    return Workspace(folder, toy, vcf, bad, folder / "model")


def replisome(
    *arguments: str, fault: str = "", once: Path | None = None, stdin: bytes | None = None, timeout: float = 200
) -> subprocess.CompletedProcess[str]:
    """Run the command; stdout and stderr as text."""
    started = start(*arguments, fault=fault, once=once, stdin=subprocess.PIPE if stdin is not None else None)
    out, err = started.communicate(stdin, timeout=timeout)
    return subprocess.CompletedProcess(arguments, started.returncode, out.decode(), err.decode())


def start(
    *arguments: str, fault: str = "", once: Path | None = None, stdin: int | None = None, own_group: bool = False
) -> subprocess.Popen[bytes]:
    """Start the command without waiting for it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "REPLISOME_FAULT": fault}
    environment |= {"REPLISOME_FAULT_ONCE": str(once)} if once else {}
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=own_group,
    )


def replisome_here(*arguments: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    """The command within this process, its stages in a plain loop; `fault` counts the points of the whole run."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(in_process, "run", _plain_loop),
        mock.patch.dict(os.environ, {"REPLISOME_FAULT": fault}),
        mock.patch.object(sys, "argv", ["replisome", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        faults._reached.clear()
        try:
            cli.app(list(arguments), prog_name="replisome")
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def _plain_loop(
    stages: Stages,
    shards: Sequence[Shard],
    publisher: PartPublisher,
    *,
    on_receipt: Callable[[Receipt], None],
    on_wait: Callable[[], None],
    **_width: int,
) -> None:
    """What the in-process executor does, without processes."""
    if shards:
        read, score = stages.open_reader(), stages.open_scorer()
        for shard in shards:
            on_receipt(publisher.publish(shard, score(read(shard))))
            on_wait()


def assert_one_sentence(done: subprocess.CompletedProcess[str], code: int, sentence: str) -> None:
    """The command ended with this code and one sentence on standard error that matches the pattern."""
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("replisome: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert re.search(sentence, done.stderr, flags=re.MULTILINE), done.stderr

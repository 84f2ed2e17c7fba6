"""MMseqs2, where it is installed (Steinegger and Söding 2017): clusters of sequences, and which proteins are alike."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.errors import InputError, SystemFailure

Ints = npt.NDArray[np.int64]

MMSEQS = "mmseqs"
COVERAGE = 0.8
# Of one protein as many hits are looked at; a family of more members is joined through those.
_MOST_HITS = 4000


def mmseqs_installed() -> bool:
    """Whether MMseqs2 is on PATH."""
    return shutil.which(MMSEQS) is not None


def mmseqs_version() -> str:
    """What MMseqs2 calls its version; empty where it is not installed."""
    if not mmseqs_installed():
        return ""
    return subprocess.run([MMSEQS, "version"], capture_output=True, text=True, check=False).stdout.strip()


def mmseqs_clusters(sequences: Sequence[bytes], *, identity: float) -> Ints:
    """Clusters: int64 (N,), the representative's place.

    Args:
        sequences: (N,) upper-case ASCII.
        identity: least sequence identity, at a coverage of 80% of both.

    Raises:
        InputError: it is not installed.
        SystemFailure: it fails.
    """
    found = np.arange(len(sequences), dtype=np.int64)
    for line in _output("easy-cluster", sequences, "_cluster.tsv", "-c", repr(COVERAGE), identity=identity):
        first, _, member = line.partition("\t")
        found[int(member)] = int(first)
    return found


def mmseqs_alike(proteins: Sequence[bytes], *, identity: float) -> list[tuple[int, int, float]]:
    """Pairs of proteins: places (greater, lesser) and their identity, by place.

    An alignment of at least that identity covers 80% of one of the two, so that a fragment is like its protein; its
    E-value is at most 0.001.

    Args:
        proteins: (N,) upper-case ASCII.
        identity: least sequence identity.

    Raises:
        InputError: it is not installed.
        SystemFailure: it fails.
    """
    words = ["-c", repr(COVERAGE), "--cov-mode", "2", "-e", "0.001", "--max-seqs", str(_MOST_HITS), "-s", "4"]
    best: dict[tuple[int, int], float] = {}
    lines = _output("easy-search", proteins, "", *words, "--format-output", "query,target,fident", identity=identity)
    for line in lines:
        one, other, share = line.split("\t")
        pair = max(int(one), int(other)), min(int(one), int(other))
        if pair[0] != pair[1]:
            best[pair] = max(best.get(pair, 0.0), float(share))
    return [(*pair, best[pair]) for pair in sorted(best)]


def _output(verb: str, sequences: Sequence[bytes], suffix: str, *words: str, identity: float) -> list[str]:
    """Lines of the file that a command leaves."""
    if not mmseqs_installed():
        fix = "install MMseqs2, or cluster by minhash, which needs nothing"
        raise InputError(f"the program {MMSEQS} is not on PATH", where="clusters mmseqs2", fix=fix)
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder) / "in.fasta"
        fasta.write_bytes(b"".join(b">%d\n%s\n" % (i, one) for i, one in enumerate(sequences)))
        given = [str(fasta)] * (1 + (verb == "easy-search"))
        options = ["--min-seq-id", repr(identity), *words, "--threads", "1", "-v", "1"]
        command = [MMSEQS, verb, *given, f"{folder}/out", f"{folder}/tmp", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        result = Path(folder) / f"out{suffix}"
        if done.returncode or not result.exists():
            said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
            raise SystemFailure(
                f"{MMSEQS} ended with code {done.returncode}: {said[0]}", where="mmseqs2", fix="see above"
            )
        return result.read_text().splitlines()

"""How fast variants are taken in, beside the tools one would pick instead: records per core-second, memory, files.

    python -m benchmarks.ingest_variants [--records 1000000] [--runs 3] [--vcf FILE] [--peers PYTHON]

Without --vcf a VCF of 100 samples is made up (GT:AD:DP:GQ:PL, about 2.6 kB a record), and one of as many sites with
INFO and no samples. Every figure counts the CPU seconds of a whole command with all its processes, imports included;
figures are medians of the runs. `--peers PYTHON` is the Python of an environment of its own with `bio2zarr[vcf]` and
`polars-bio` (which needs an older polars than ours); each is run on the file of sites and on a tenth of the other one,
beside us on the same, as they take long. A peer that is not installed there is told and left out.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/ingest_variants.py`

from engine.io import bgzf

_COMMAND = [sys.executable, "-c", "from jobs.cli import main; main()", "ingest-variants"]
_NUM_SAMPLES = 100
_PEER_SHARE = 10
_FLAT_SHARE = 5
_BARS = {"sites": 150_000, "genotypes": 15_000, "all": 10_000}
_CHOICES = {"sites": ["--info", "*"], "genotypes": ["--genotypes"], "all": ["--info", "*", "--format", "*"]}
_INFOS = [("AC", "A", "Integer"), ("AF", "A", "Float"), ("AN", "1", "Integer"), ("DP", "1", "Integer")]
_INFOS += [(name, "1", "Float") for name in ("FS", "MQ", "QD", "SOR")]
_FORMATS = [("GT", "1", "String"), ("AD", "R", "Integer"), ("DP", "1", "Integer"), ("GQ", "1", "Integer")]
_FORMATS += [("PL", "G", "Integer")]
_COLUMNS = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]
_PYSAM = (
    "import sys, pysam\n"
    "with pysam.VariantFile(sys.argv[1], drop_samples=sys.argv[2] == 'sites') as variants:\n"
    "    for _ in variants: pass\n"
)
_POLARS = (
    "import sys, polars_bio as pb\n"
    "asked = {'info_fields': [] if sys.argv[3] == 'genotypes' else sys.argv[4].split(',')}\n"
    "asked['format_fields'] = {'sites': [], 'genotypes': ['GT'], 'all': None}[sys.argv[3]]\n"
    "pb.scan_vcf(sys.argv[1], **asked).sink_parquet(sys.argv[2])\n"
)


# ---------------------------------------------------------------- input


def _header(num_samples: int) -> str:
    lines = ["##fileformat=VCFv4.2", '##FILTER=<ID=PASS,Description="All filters passed">']
    lines.append("##contig=<ID=chr20,length=248956422>")
    lines += [f'##INFO=<ID={i},Number={n},Type={t},Description="Made up">' for i, n, t in _INFOS]
    lines += [f'##FORMAT=<ID={i},Number={n},Type={t},Description="Made up">' for i, n, t in _FORMATS]
    samples = ["FORMAT", *(f"S{number:03d}" for number in range(num_samples))] if num_samples else []
    return "\n".join([*lines, "\t".join([*_COLUMNS, *samples])]) + "\n"


def _cell(chance: random.Random) -> str:
    call = chance.choices(["0/0", "0/1", "1/1", "./."], [80, 14, 5, 1])[0]
    if call == "./.":
        return "./.:0,0:0:.:0,0,0"
    depth = chance.randint(8, 60)
    alt = {"0/0": 0, "0/1": depth // 2, "1/1": depth}[call]
    quality = min(99, 3 * depth)
    low, high = chance.randint(100, 900), chance.randint(300, 1800)
    likelihoods = {"0/0": (0, quality, high), "0/1": (low, 0, high), "1/1": (high, quality, 0)}[call]
    return f"{call}:{depth - alt},{alt}:{depth}:{quality}:{','.join(map(str, likelihoods))}"


def _lines(num_records: int, num_samples: int) -> Iterator[str]:
    chance = random.Random(1)
    cells = [_cell(chance) for _ in range(20_000)]
    pos = 10_000
    for _ in range(num_records):
        pos += chance.randint(1, 60)
        ref, alt = chance.sample("ACGT", 2)
        count = chance.randint(1, 199)
        info = f"AC={count};AF={count / 200:.3f};AN=200;DP={chance.randint(800, 6000)};FS={chance.uniform(0, 10):.3f};"
        info += f"MQ=60.00;QD={chance.uniform(2, 30):.2f};SOR={chance.uniform(0, 3):.3f}"
        site = f"chr20\t{pos}\t.\t{ref}\t{alt}\t{chance.uniform(30, 5000):.2f}\tPASS\t{info}"
        begin = chance.randrange(len(cells) - num_samples)
        calls = "\t".join(["", "GT:AD:DP:GQ:PL", *cells[begin : begin + num_samples]]) if num_samples else ""
        yield f"{site}{calls}\n"


def write_vcf(path: Path, num_records: int, num_samples: int) -> None:
    """A made-up VCF with its index, the same for the same sizes."""
    import pysam

    held = [_header(num_samples)]
    with path.open("wb") as out:
        for number, line in enumerate(_lines(num_records, num_samples)):
            held.append(line)
            if number % 2000 == 1999:
                data = "".join(held).encode()
                whole = len(data) // bgzf.BLOCK_BYTES * bgzf.BLOCK_BYTES
                out.write(bgzf.compress(data[:whole]))
                held = [data[whole:].decode()]
        out.write(bgzf.compress("".join(held).encode()) + bgzf.EOF)
    pysam.tabix_index(str(path), preset="vcf", force=True)


def _count(path: Path) -> int:
    return sum(data.count(b"\n") for _, data, _ in bgzf.read_blocks(path)) - _header_lines(path)


def _header_lines(path: Path) -> int:
    from engine.io.vcf_columns import open_columns

    return open_columns(path).header.count(b"\n")


# ---------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Cost:
    """What a command took: CPU and wall seconds, and the most memory of any of its processes in MB."""

    cpu_s: float
    wall_s: float
    peak_mb: float


def measure(command: list[str]) -> Cost:
    """Run a command to its end, looking at the memory of its processes ten times a second."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0.0
    while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
        peak = max([peak, *map(_peak_mb, _family(process.pid))])
        time.sleep(0.1)
    _, status, usage = ended
    if status:
        raise SystemExit(f"{' '.join(command[:6])} ... ended with {os.waitstatus_to_exitcode(status)}")
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - began, peak)


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _family(int(child))


def _peak_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def median(make: Callable[[int], list[str]], runs: int) -> Cost:
    """Medians over several runs; `make` gives the command of each."""
    found = [measure(make(number)) for number in range(runs)]
    return Cost(*(statistics.median(getattr(cost, name) for cost in found) for name in Cost.__dataclass_fields__))


def _repeated(command: list[str], runs: int) -> Cost:
    """Medians over runs of one command."""
    return median(lambda _: command, runs)


def ours(vcf: Path, folder: Path, choice: str, *, workers: int = 1) -> Callable[[int], list[str]]:
    """The command, each time into a folder of its own."""

    def make(number: int) -> list[str]:
        output = folder / f"{vcf.stem}-{choice}-{workers}-{number}"
        return [*_COMMAND, str(vcf), "-o", str(output), *_CHOICES[choice], "-j", str(workers), "--progress", "none"]

    return make


# ---------------------------------------------------------------- peers


def peers_of(python: Path | None) -> list[str]:
    """Peers that are installed in an environment; those that are not are told and left out."""
    if python is None:
        return []
    found = []
    for name, module in (("bio2zarr", "bio2zarr.vcf"), ("polars-bio", "polars_bio")):
        done = subprocess.run([str(python), "-c", f"import {module}"], capture_output=True, timeout=600)
        if done.returncode:
            print(f"{name} is left out: {done.stderr.decode().strip().splitlines()[-1][:200]}")
        else:
            found.append(name)
    return found


def peer(name: str, python: Path, vcf: Path, folder: Path, choice: str) -> Callable[[int], list[str]] | None:
    """A peer's command for a choice, None where it has none."""
    infos = ",".join(one[0] for one in _INFOS)

    def make(number: int) -> list[str]:
        output = str(folder / f"{name}-{vcf.stem}-{choice}-{number}")
        if name == "bio2zarr":
            return [str(python.parent / "vcf2zarr"), "convert", "--no-progress", "-p", "1", str(vcf), output]
        return [str(python), "-c", _POLARS, str(vcf), output, choice, infos]

    served = {"bio2zarr": ("all",), "polars-bio": ("sites", "genotypes", "all")}
    return make if choice in served[name] else None


# ---------------------------------------------------------------- the table


def _row(name: str, records: int, cost: Cost, note: str = "") -> None:
    rate = f"{records / cost.cpu_s:>12,.0f}"
    print(f"{name:<44}{rate}{cost.cpu_s:>9.1f}{cost.wall_s:>9.1f}{cost.peak_mb:>9.0f}  {note}", flush=True)


def _files(folder: Path, vcf: Path, choice: str) -> int:
    store = folder / f"{vcf.stem}-{choice}-1-0" / "variants.zarr"
    return sum(path.is_file() for path in store.rglob("*"))


def _alone(vcf: Path, records: int, choice: str, folder: Path, *, runs: int) -> Cost:
    """Our row for a file and what is taken from it."""
    bar = f"bar {_BARS[choice]:,}"
    cost = median(ours(vcf, folder, choice), runs)
    files = _files(folder, vcf, choice)
    _row(f"replisome, {choice}, {vcf.name}", records, cost, f"{bar}{f', {files} files' if files else ''}")
    return cost


def _beside(vcf: Path, records: int, choice: str, folder: Path, *, python: Path, names: list[str]) -> None:
    """Rows of the peers."""
    for name in names:
        make = peer(name, python, vcf, folder, choice)
        if make is not None:
            _row(f"  {name}, {choice}, {vcf.name}", records, median(make, 1))


def _two(vcf: Path, records: int, choice: str, folder: Path, *, runs: int, one: Cost) -> None:
    two = median(ours(vcf, folder / "two", choice, workers=2), runs)
    _row(f"replisome, {choice}, two workers", records, two, f"{one.wall_s / two.wall_s:.2f}x one (1.7 asked)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--vcf", type=Path, help="a BGZF VCF with samples to use instead")
    parser.add_argument("--peers", type=Path, help="Python of the peers' own environment")
    arguments = parser.parse_args()
    one_thread = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
    os.environ.update(dict.fromkeys(one_thread, "1"))
    python = arguments.peers.absolute() if arguments.peers else None
    names, runs = peers_of(python), arguments.runs
    with tempfile.TemporaryDirectory(prefix="replisome-ingest-") as name:
        folder = Path(name)
        sites, fifth, tenth = (folder / f"{one}.vcf.gz" for one in ("sites", "fifth", "tenth"))
        full = arguments.vcf or folder / "samples.vcf.gz"
        if not arguments.vcf:
            write_vcf(full, arguments.records, _NUM_SAMPLES)
        records = _count(full)
        few, fewer = (max(1, arguments.records // share) for share in (_FLAT_SHARE, _PEER_SHARE))
        write_vcf(sites, arguments.records, 0)
        write_vcf(fifth, few, _NUM_SAMPLES)
        print(f"{'':<44}{'records/':>12}{'CPU':>9}{'wall':>9}{'peak':>9}")
        print(f"{'':<44}{'core-second':>12}{'s':>9}{'s':>9}{'MB':>9}")
        for vcf, num, choice in ((sites, arguments.records, "sites"), (full, records, "sites")):
            _alone(vcf, num, choice, folder, runs=runs)
            parse = [sys.executable, "-c", _PYSAM, str(vcf), choice]
            _row("  htslib's parse alone (pysam)", num, _repeated(parse, 1))
        parse = [sys.executable, "-c", _PYSAM, str(full), "all"]
        _row("  htslib's parse alone (pysam), with samples", records, _repeated(parse, 1))
        for choice in ("genotypes", "all"):
            one = _alone(full, records, choice, folder, runs=runs)
            _two(full, records, choice, folder, runs=runs, one=one)
        for choice in ("genotypes", "all"):
            small = median(ours(fifth, folder, choice), 1)
            _row(f"replisome, {choice}, a fifth of the records", few, small, "memory must be flat")
        if python is not None and names:
            write_vcf(tenth, fewer, _NUM_SAMPLES)
            _beside(sites, arguments.records, "sites", folder, python=python, names=names)
            for choice in ("sites", "genotypes", "all"):
                _alone(tenth, fewer, choice, folder, runs=1)
                _beside(tenth, fewer, choice, folder, python=python, names=names)


if __name__ == "__main__":
    main()

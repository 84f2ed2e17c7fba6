"""Run the command on disks too small for it, then give each disk room: every run must end in the same bytes.

    unshare -rm python -m tests.toys.small_disk FOLDER WORKSPACE SIZE...     (sizes in kilobytes)

The command is run within this process, on a file system that is gone when the process ends.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.toys.runs import result_bytes
from tests.toys.variant_runs import replisome_here


def main(folder: Path, workspace: Path, sizes: list[str]) -> None:
    """Raise AssertionError where a full disk is not told in one sentence, or leaves other bytes."""
    assert replisome_here(*_words(workspace, folder / "roomy")).returncode == 0
    calm = result_bytes(folder / "roomy")
    disk = folder / "disk"
    disk.mkdir()
    for size in sizes:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
        words = _words(workspace, disk / "out")
        full = replisome_here(*words)
        assert full.returncode == 4, (size, full)
        assert full.stderr.count("\n") == 1, (size, full)
        assert "the disk is full; free some space and run the same command again" in full.stderr, (size, full)
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        resumed = replisome_here(*words)
        assert resumed.returncode == 0, (size, resumed)
        assert result_bytes(disk / "out") == calm, size
        # Lazily: htslib may still hold a file that it failed to write.
        subprocess.run(["umount", "-l", disk], check=True)


def _words(workspace: Path, output: Path) -> list[str]:
    words = ["score-variants", str(workspace / "hostile.vcf.gz"), "--reference", str(workspace / "toy.fa")]
    words += ["--scorer", "gc_change", "-o", str(output), "--records-per-shard", "60", "--max-rejects", "1"]
    return [*words, "--progress", "none", "--bcf", "--vep-tab", "--partition-by-contig"]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])

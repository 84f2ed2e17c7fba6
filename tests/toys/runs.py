"""Looking at run directories: which bytes must be the same in two runs of one plan."""

from __future__ import annotations

from pathlib import Path

# These hold times, paths and hosts, and are sealed by report.json instead of the manifest.
SIDECARS = {"run.json", "run.log", "report.html", "report.json"}


def result_bytes(output: Path) -> dict[str, bytes]:
    """Every file of a run that must be the same for any crash, worker count and executor."""
    found = {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if name not in SIDECARS}


def assert_same_results(output: Path, calm: Path) -> None:
    ours, theirs = result_bytes(output), result_bytes(calm)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []

"""Runs that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.toys.variant_runs import Workspace, make_workspace, replisome


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="session")
def calm(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calm run over the hostile input with the scorer that needs no model."""
    output = tmp_path_factory.mktemp("calm") / "out"
    done = replisome(*workspace.arguments(output), "--workers", "1")
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="session")
def spliced(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a real model's scorer over the good input, with every kind of result."""
    output = tmp_path_factory.mktemp("spliced") / "out"
    done = replisome(
        *workspace.arguments(output, vcf=workspace.vcf, scorer="splice_delta"),
        *(
            "--workers",
            "1",
            "--bcf",
            "--vep-tab",
            "--partition-by-contig",
            "--keep-info",
            "KIND,AF",
            "--distance",
            "30",
        ),
    )
    assert done.returncode == 0, done.stderr
    return output

"""A private cache for every test of this room, and one toy genome for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.toys.genome import ToyGenome, make_genome


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where XDG_CACHE_HOME points during the test."""
    home = tmp_path / "cache-home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyGenome:
    return make_genome(tmp_path_factory.mktemp("toy"))

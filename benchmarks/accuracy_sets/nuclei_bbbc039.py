"""Nuclei of U2OS cells in a chemical screen (BBBC039v1). Groups: the well an image is of."""

from __future__ import annotations

from pathlib import Path

import zarr

from benchmarks.accuracy_sets._bench import Bench, Wanted
from benchmarks.accuracy_sets._images import Objects


class Nuclei(Objects):
    """See the module's docstring."""

    wanted = Wanted("none", least=0.85)

    def __init__(self, data: Path, work: Path) -> None:
        store = data / "nuclei-bbbc039" / "shared.zarr"
        names = zarr.open_group(store, mode="r").attrs["names"]
        wells = [str(name).split("_")[1] for name in names]  # type: ignore[union-attr]
        super().__init__(store, work, wells, masks={"array": "label"})


BENCHES = (Bench("nuclei-bbbc039", Nuclei),)

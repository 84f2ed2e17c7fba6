"""Red cells, white cells and platelets of stained blood smears (BCCD). Groups: the image a crop was cut from."""

from __future__ import annotations

from pathlib import Path

import zarr

from benchmarks.accuracy_sets._bench import Bench, Wanted
from benchmarks.accuracy_sets._images import Classes


class Cells(Classes):
    """See the module's docstring."""

    wanted = Wanted("none", least=0.97)

    def __init__(self, data: Path, work: Path) -> None:
        store = data / "cells-bccd" / "crops_shared.zarr"
        names = zarr.open_group(store, mode="r").attrs["image_names"]
        super().__init__(store, work, list(map(str, names)), input={"label_array": "label"})  # type: ignore[arg-type]


BENCHES = (Bench("cells-bccd", Cells, rounds=5),)

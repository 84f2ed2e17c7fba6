"""A finished set of images, and its pixels by record number.

What stays in memory is the index: some 30 bytes an image, and the texts of its classes and groups. Pixels are read from
the set's Zarr shards as they are asked for, each chunk against its checksum; the index and the metadata of the arrays
are held against the run's manifest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.errors import DataError, InputError
from engine.io import parquet
from engine.io.image_store import STORE, mask_array
from engine.io.zarr_reader import CheckedArray
from engine.runtime import layout
from engine.runtime.commit import committed_files
from engine.storage.store import open_store
from schemas import states

INDEX = "index.parquet"
JOB = "ingest_images"
RUN_PREFIX = "run:"
_COLUMNS = ("record", "id", "shape", "label", "group", "array", "row", "state")
_OPEN_ARRAYS = 64
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class ImageSet:
    """The kept images of a set, in its order; N of them.

    Attributes:
        path: folder of the run.
        digest: of its manifest.
        dtype: of all pixels.
        mask_dtype: of all masks; None where the set has none.
        shape: of all images, (C, Y, X) or (C, Z, Y, X); None where they differ.
        records: (N,) record numbers, ascending.
        ids: (N,) names.
        labels: (N,) classes, null where there is none.
        groups: (N,) what must not straddle splits.
        arrays: names of the arrays.
        array_of: (N,) place in `arrays`.
        row_of: (N,) row of that array.
        checksums: file of the run to its CRC-32C, of the arrays' metadata.
    """

    path: str
    digest: str
    dtype: np.dtype[Any]
    mask_dtype: np.dtype[Any] | None
    shape: tuple[int, ...] | None
    records: Ids
    ids: pa.Array
    labels: pa.Array
    groups: pa.Array
    arrays: tuple[str, ...]
    array_of: NDArray[np.int32]
    row_of: Ids
    checksums: dict[str, int]

    def __len__(self) -> int:
        return len(self.records)

    def card_facts(self) -> dict[str, Any]:
        """What a model that is trained on it keeps of it."""
        return {"images": {"dtype": str(self.dtype), "shape": None if self.shape is None else list(self.shape)}}

    def places(self, records: Sequence[int] | Ids) -> Ids:
        """Places in the set of these record numbers.

        Raises:
            DataError: a record is not in the set, or was rejected from it.
        """
        wanted = np.asarray(records, np.int64)
        found = np.minimum(np.searchsorted(self.records, wanted), max(len(self.records) - 1, 0))
        wrong = wanted if not len(self.records) else wanted[self.records[found] != wanted]
        if len(wrong):
            fix = "make the splits anew for this set"
            raise DataError(f"record {int(wrong[0])} is not among the kept images", where=self.path, fix=fix)
        return found


def open_image_set(path: str) -> ImageSet:
    """Open the output of a finished `ingest-images` run (also as run:FOLDER), on a local disk.

    Raises:
        InputError: nothing there, an unfinished run, or a run of another job.
        DataError: the manifest, the list of files or the index was changed.
    """
    folder, manifest, files = _opened(path)
    kept = _kept(folder, files, _COLUMNS)
    codes = kept["array"].combine_chunks().dictionary_encode()
    shapes = {tuple(shape) for shape in kept["shape"].to_pylist()}
    told = manifest["facts"]["store"]
    return ImageSet(
        str(Path(folder).expanduser().absolute()),
        str(manifest["digest"]),
        np.dtype(told["dtype"]),
        None if told["mask_dtype"] is None else np.dtype(told["mask_dtype"]),
        shapes.pop() if len(shapes) == 1 else None,
        np.asarray(kept["record"]),
        kept["id"].combine_chunks(),
        kept["label"].combine_chunks(),
        kept["group"].combine_chunks(),
        tuple(codes.dictionary.to_pylist()),
        np.asarray(codes.indices, np.int32),
        np.asarray(kept["row"], np.int64),
        {
            name: entry.crc32c
            for name, entry in files.items()
            if name.startswith(f"{STORE}/") and name.endswith(".json")
        },
    )


def is_image_set(path: str) -> bool:
    """Whether a finished run that makes images lies there."""
    folder = path.removeprefix(RUN_PREFIX)
    store = open_store(folder)
    return store.exists(layout.MANIFEST) and bool(layout.read_sealed(store, layout.MANIFEST)["job"] == JOB)


def pixel_digests(data: ImageSet) -> list[str]:
    """Digest of each image's type, shape and pixels, as they were ingested; (N,).

    Raises:
        DataError: the index was changed.
    """
    folder, _, files = _opened(data.path)
    found: list[str] = _kept(folder, files, ("pixel_digest", "state"))["pixel_digest"].to_pylist()
    return found


def _opened(path: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Folder, manifest and committed files of a finished run."""
    folder = path.removeprefix(RUN_PREFIX)
    if "://" in folder:
        raise InputError("images are read from a local disk", where=folder, fix="copy the set there, or mount it")
    store = open_store(folder)
    try:
        manifest = layout.read_sealed(store, layout.MANIFEST)
    except FileNotFoundError:
        what = (
            "the run that makes this set is not finished" if store.exists(layout.RUN) else "there is no image set here"
        )
        raise InputError(what, where=folder, fix="give the output of a finished ingest-images run") from None
    if manifest["job"] != JOB:
        raise InputError(f"a run of {manifest['job']}, not of {JOB}", where=folder, fix="give an image set")
    return folder, manifest, committed_files(store, manifest)


def _kept(folder: str, files: dict[str, Any], columns: Sequence[str]) -> pa.Table:
    """Columns of the index, of the kept images alone."""
    with open_store(folder).opened(INDEX) as place:
        table = parquet.read_table(place, list(columns), crc32c=files[INDEX].crc32c)
    return table.filter(pc.equal(table["state"], states.KEPT)).combine_chunks()


class ImageReader:
    """Reads images and masks of a set; one per process, picklable, holding a few shard indexes and no pixels.

    Args:
        data: the set.
    """

    def __init__(self, data: ImageSet) -> None:
        self.data = data
        self._open: OrderedDict[str, CheckedArray] = OrderedDict()

    def images(self, records: Sequence[int] | Ids) -> NDArray[Any]:
        """Pixels of these records, in their order: (B, C, Y, X), or (B, C, Z, Y, X), of the set's type.

        Raises:
            DataError: a chunk is missing or damaged, or a record is not in the set.
            InputError: they are of several shapes.
        """
        return _stacked([self._row(array, row) for array, row in self._where(records)], self.data.path)

    def masks(self, records: Sequence[int] | Ids) -> NDArray[Any]:
        """Label images of these records, in their order: (B, Y, X) or (B, Z, Y, X).

        Raises:
            DataError: a chunk is missing or damaged, or a record is not in the set.
            InputError: the set has no masks, or they are of several shapes.
        """
        if self.data.mask_dtype is None:
            fix = "make it anew with --masks, --label-image or a table's column of masks"
            raise InputError("the set has no masks", where=self.data.path, fix=fix)
        return _stacked([self._row(mask_array(array), row) for array, row in self._where(records)], self.data.path)

    def _where(self, records: Sequence[int] | Ids) -> list[tuple[str, int]]:
        data = self.data
        return [(data.arrays[data.array_of[at]], int(data.row_of[at])) for at in data.places(records)]

    def _row(self, array: str, row: int) -> NDArray[Any]:
        found = self._open.get(array)
        if found is None:
            name = f"{STORE}/{array}/zarr.json"
            found = CheckedArray(Path(self.data.path) / STORE, array, crc32c=self.data.checksums[name])
            self._open[array] = found
            if len(self._open) > _OPEN_ARRAYS:
                self._open.popitem(last=False)
        return found.row(row)

    def __getstate__(self) -> dict[str, Any]:
        return {"data": self.data, "_open": OrderedDict()}


def _stacked(rows: Sequence[NDArray[Any]], where: str) -> NDArray[Any]:
    shapes = sorted({row.shape for row in rows})
    if len(shapes) > 1:
        some = " and ".join(str(list(shape)) for shape in shapes[:2])
        raise InputError(f"images of shapes {some} make no batch", where=where, fix="ingest with --sizes one")
    return np.stack(rows)

"""Sets of images: a Zarr group to shards, partings by group, and figures from outputs.parquet.

Shape letters: N images, K outputs, S numbers kept of an image.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.accuracy_sets._bench import QUIET, Figure, Prepared, Wanted
from benchmarks.accuracy_sets._sequences import outputs_of, split_of
from engine.io.parquet import read_table, write_table
from engine.training import _metrics
from engine.training._image_set import ImageReader, open_image_set
from jobs import _spec, ingest_images
from schemas import tables


class PreparedImages(Prepared):
    """Images ingested; a record is an image's place in its array.

    Args:
        store: the Zarr group.
        work: folder to work in.
        groups: (N,) what must not be parted.
        given: keys of the ingest spec's `input` and `masks`.
    """

    def __init__(self, store: Path, work: Path, groups: Sequence[str], **given: Mapping[str, Any]) -> None:
        self.folder, self.groups = work / "set", groups
        values = {
            "input": {"folders": [str(store)], **given.get("input", {})},
            "masks": given.get("masks", {}),
            "cleaning": {"duplicates": "keep"},
            "execution": {"workers": 1},
            "output": str(self.folder),
        }
        _, spec = _spec.build(_spec.Source(values, "benchmarks/accuracy.py", {}), job="ingest_images")
        ingest_images.run(spec, QUIET)  # type: ignore[arg-type]
        self.data = open_image_set(str(self.folder))
        self.reader = ImageReader(self.data)

    def splits(self, number: int) -> list[str]:
        """ "train", "validation" or "test" of each image."""
        return [split_of(group, "", number) for group in self.groups]

    def write_split(self, number: int, path: Path) -> None:
        """See Prepared."""
        first: dict[str, int] = {}
        made = [
            {"record": record, "id": str(record), "split": split, "unit": first.setdefault(group, record)}
            for record, (split, group) in enumerate(zip(self.splits(number), self.groups, strict=True))
        ]
        table = pa.Table.from_pylist(made, tables.SPLITS)
        facts = {"method": "sha256 of the group", "seed": str(number), "data_digest": self.data.digest}
        write_table(table, path, schema_name="splits", version=tables.SPLITS_VERSION, metadata=facts)

    def clusters(self, record_N: Any) -> Any:
        """(N,) what intervals draw whole: the groups that are not parted."""
        return _metrics.clusters_of([self.groups[record] for record in record_N.tolist()])

    @abstractmethod
    def figures(self, runs: Sequence[Path]) -> Iterator[Figure]:
        """See Prepared."""


class Classes(PreparedImages):
    """Accuracy over classes; the floor is logistic regression on the colours' means and spreads."""

    wanted: Wanted

    def figures(self, runs: Sequence[Path]) -> Iterator[Figure]:
        """See Prepared."""
        record_N, values_NK, truth_N = outputs_of([run / "outputs.parquet" for run in runs], "test")
        truth_N = truth_N.astype(np.int64)
        labels = self.data.labels.to_pylist()
        classes = {name: number for number, name in enumerate(sorted(set(labels)))}
        known_N = np.array([classes[name] for name in labels])
        floors = np.full(len(labels), -1)
        for number in range(len(runs)):
            tested_N = np.array([split == "test" for split in self.splits(number)])
            floors[tested_N] = colour_floor(self.reader.images(self.data.records), known_N, tested_N)
        told = {"ours": values_NK.argmax(axis=1), "floor": floors[record_N]}
        statistics = {
            name: _metrics.class_statistics(truth_N, called_N, len(classes))["accuracy"]
            for name, called_N in told.items()
        }
        made = _metrics.with_intervals(statistics, len(record_N), clusters=self.clusters(record_N))
        ours, floor = made["ours"], made["floor"]["value"]
        yield Figure("", "accuracy", len(record_N), ours["value"], ours["low"], ours["high"], floor, self.wanted)


def colour_floor(pixels_NCYX: Any, truth_N: Any, tested_N: Any) -> Any:
    """Classes of the tested images by logistic regression on mean and spread of each channel."""
    from sklearn.linear_model import LogisticRegression

    x_NF = np.concatenate([pixels_NCYX.mean(axis=(2, 3)), pixels_NCYX.std(axis=(2, 3))], axis=1)
    seen_NF = x_NF[~tested_N]
    x_NF = (x_NF - seen_NF.mean(axis=0)) / seen_NF.std(axis=0)
    return LogisticRegression(max_iter=1000).fit(x_NF[~tested_N], truth_N[~tested_N]).predict(x_NF[tested_N])


class Objects(PreparedImages):
    """F1 of objects matched one to one at IoU 0.7, pooled over the images; the floor is Otsu's threshold."""

    wanted: Wanted

    def figures(self, runs: Sequence[Path]) -> Iterator[Figure]:
        """See Prepared."""
        from engine.imaging.matching import match_counts, object_f1
        from engine.imaging.otsu import otsu_objects

        outputs = [run / "outputs.parquet" for run in runs]
        record_N, kept_NS, _ = outputs_of(outputs, "test")
        names = json.loads(read_table(outputs[0]).schema.metadata[b"outputs"])
        columns = [names.index(name) for name in ("matched_70", "predicted_objects", "true_objects")]
        hits_N, told_N, true_N = kept_NS[:, columns].T
        ours_N3 = np.stack([hits_N, told_N - hits_N, true_N - hits_N], axis=1)
        pairs = zip(self.reader.masks(record_N), self.reader.images(record_N)[:, 0], strict=True)
        floor_N3 = np.array([match_counts(mask, otsu_objects(pixels), (0.7,))[0] for mask, pixels in pairs])
        made = _metrics.with_intervals(
            {
                "ours": lambda weights_N: float(object_f1(weights_N @ ours_N3)),
                "floor": lambda weights_N: float(object_f1(weights_N @ floor_N3)),
            },
            len(record_N),
            clusters=self.clusters(record_N),
        )
        ours, floor = made["ours"], made["floor"]["value"]
        yield Figure(
            "", "object F1, IoU 0.7", len(record_N), ours["value"], ours["low"], ours["high"], floor, self.wanted
        )

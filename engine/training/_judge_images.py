"""What a model tells of images held against the set's own classes or masks: a row each, then figures over all of them.

Shape letters: N images, S numbers kept of an image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine import registry
from engine.errors import DataError, InputError
from engine.models._info import ModelInfo
from engine.scoring._predict_stages import Skipped
from engine.training import _metrics
from engine.training._image_set import ImageSet
from engine.training.kinds.images import MASKS
from schemas import states
from schemas.tables import field

FIELDS = (
    field("kept", pa.list_(pa.float64()), "what the task keeps of the image for its figures"),
    field("target", pa.list_(pa.float64()), "the truth, as the task keeps it"),
)
# A group of fewer images has no figures: they would say more of single images than of the model.
SMALL_GROUP = 5
_MOST_GROUPS = 100


def task_of(info: ModelInfo) -> Any:
    """The task a model was trained for, as its folder keeps it.

    Raises:
        InputError: the folder does not say.
    """
    name, params = info.extra.get("task", ["", {}])
    facts = info.extra.get("targets", {})
    try:
        cls = registry.component("tasks", str(name))
        built = registry.build_params(cls, params, where=info.path)
        return cls.from_facts(built, next(iter(info.heads.values())).channels, facts)
    except (InputError, AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"its folder does not say what it was trained for ({error})"
        raise InputError(what, where=f"model {info.name}", fix="train it by train-model") from error


@dataclass(frozen=True)
class Judge:
    """Attributes:
    task: of the model.
    data: the set, with the truth.
    """

    task: Any
    data: ImageSet

    @property
    def needs_masks(self) -> bool:
        """Whether the truth is the set's masks."""
        return bool(self.task.column == MASKS)

    def check(self) -> None:
        """Raises InputError: the set has no truth of this kind."""
        if self.needs_masks and self.data.mask_dtype is None:
            raise InputError("the set has no masks to judge by", where=self.data.path, fix="make it anew with --masks")
        if not self.needs_masks and self.data.labels.null_count == len(self.data):
            raise InputError("the set has no labels to judge by", where=self.data.path, fix="make it anew with labels")

    def target(self, record: int, label: str | None, mask: NDArray[Any] | None) -> Any:
        """The truth of an image as the task has it, or why there is none (`Skipped`)."""
        if not self.needs_masks and label is None:
            return Skipped(states.REJECTED, "missing_label", f"record {record} has no label to judge by")
        truth = mask[None] if mask is not None else pa.chunked_array([pa.array([label], pa.string())])
        try:
            return self.task.targets(truth, records=np.array([record]), where=self.data.path)[0]
        except DataError as error:
            return Skipped(states.REJECTED, "unknown_label", str(error))

    def kept(self, values: NDArray[Any], target: Any) -> tuple[list[float], list[float]]:
        """What is kept of an image and of its truth."""
        kept, truth = self.task.kept(values[None].astype(np.float64), self.task.stack([target]))
        return np.ravel(kept[0]).tolist(), [float(one) for one in np.ravel(truth[0])]

    def figures(self, parts: Iterable[pa.Table]) -> dict[str, Any]:
        """Metrics with 95% bootstrap intervals over images: of all, and of the largest groups.

        Groups of fewer than SMALL_GROUP images, and all but the hundred largest, are left out and counted.
        Where the set has groups, those of all draw whole groups; else, and within a group, images are drawn.
        """
        found = [table.filter(pc.equal(table["state"], states.SCORED)) for table in parts]
        rows = pa.concat_tables(found).select(["group", "kept", "target"]).to_pydict()
        sizes = Counter(name for name in rows["group"] if name is not None).most_common()
        large = [name for name, count in sizes if count >= SMALL_GROUP]
        return {
            "all": self._of(rows, None),
            "groups": {name: self._of(rows, name) for name in large[:_MOST_GROUPS]},
            "groups_left_out": {"small": len(sizes) - len(large), "beyond": len(large[_MOST_GROUPS:])},
            "kept": list(self.task.kept_names),
        }

    def _of(self, rows: Mapping[str, Any], group: str | None) -> dict[str, Any]:
        mine = [n for n, name in enumerate(rows["group"]) if group is None or name == group]
        kept_NS = np.array([rows["kept"][n] for n in mine]).reshape(len(mine), len(self.task.kept_names))
        truth_N = np.array([rows["target"][n][0] for n in mine], np.int64)
        statistics = self.task.statistics(kept_NS, truth_N)
        clusters = _metrics.clusters_of([rows["group"][n] for n in mine])
        counts = self.task.confusion(kept_NS, truth_N)
        return {
            "samples": len(mine),
            "metrics": _metrics.with_intervals(statistics, len(mine), clusters=clusters) if mine else {},
            "drawn": _metrics.drawn(clusters),
            "confusion": None if counts is None else counts.tolist(),
        }

"""What an evaluation keeps of heads that tell objects in images, and its figures.

Of an image stay the counts that the task itself keeps in training (engine/training/tasks/image_segmentation.py), so
that both tell the same figures and a bootstrap draws whole images.

Shape letters: N images, S numbers kept of an image, K classes of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine import registry
from engine.errors import InputError
from engine.models._info import HeadInfo, ModelInfo
from engine.scoring._metrics import Floats, Ints, Statistic
from engine.training._class_figures import f1, jaccard, precision, recall
from schemas.tables import field as table_field


@dataclass(frozen=True)
class JudgedObjects:
    """Images with the counts of their objects and pixels; see `_evaluation.Judged`, whose place it takes.

    Attributes:
        head: whose outputs.
        task: what made the counts.
        kept_NS: columns as `task.kept_names` has them.
        groups, clusters: as Judged has them.
    """

    head: HeadInfo
    task: Any
    kept_NS: Floats
    groups: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    clusters: Ints | None = None

    @property
    def size(self) -> int:
        """N."""
        return len(self.kept_NS)

    @property
    def num_truths(self) -> int:
        """Pixels."""
        return int(self.confusion().sum())

    @property
    def kind(self) -> Literal["objects"]:
        """What the head tells."""
        return "objects"

    def num_positive(self) -> Ints:
        """(K,) pixels of each class."""
        pixels_K: Ints = self.confusion().sum(axis=1)
        return pixels_K

    def num_objects(self) -> int:
        """True objects of all images."""
        return int(self.kept_NS[:, self.task.kept_names.index("true_objects")].sum())

    def rows(self, chosen_N: NDArray[np.bool_]) -> JudgedObjects:
        """Some of the images, without their groups."""
        clusters = None if self.clusters is None else np.unique(self.clusters[chosen_N], return_inverse=True)[1]
        return replace(self, kept_NS=self.kept_NS[chosen_N], groups={}, clusters=clusters)

    def confusion(self) -> Ints:
        """(K, K) pixels, truth in rows."""
        counts_KK: Ints = self.task.confusion(self.kept_NS, None)
        return counts_KK

    def overall(self) -> dict[str, Statistic]:
        """The task's own metrics."""
        return dict(self.task.statistics(self.kept_NS, None))

    def channel(self, channel: int) -> dict[str, Statistic]:
        """Metrics of one class of pixels against the rest."""
        pixels = self.task.pixel_counts

        def of(figure: Any) -> Statistic:
            return lambda weights_N: float(figure(pixels(weights_N @ self.kept_NS))[channel])

        return {name: of(figure) for name, figure in _PIXEL_FIGURES.items()}

    def at_thresholds(self) -> dict[str, tuple[int, dict[str, Statistic]]]:
        """For each IoU from which objects count as matched: how many are, and the figures of whole objects there."""
        found: dict[str, tuple[int, dict[str, Statistic]]] = self.task.threshold_statistics(self.kept_NS)
        return found

    def reliability(self) -> list[tuple[int, int, float, float]]:
        """None: an object has no confidence."""
        return []


_PIXEL_FIGURES = {"precision": precision, "recall": recall, "f1": f1, "iou": jaccard}


def segmentation_of(info: ModelInfo) -> Any:
    """The task that a model which tells objects was trained for, as its folder keeps it.

    Raises:
        InputError: the folder does not say.
    """
    name, params = info.extra.get("task", ["", {}])
    try:
        cls = registry.component("tasks", str(name))
        built = registry.build_params(cls, params, where=info.path)
        return cls.from_facts(built, next(iter(info.heads.values())).channels, info.extra.get("targets", {}))
    except (InputError, AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"its folder does not say what it was trained for ({error})"
        raise InputError(what, where=f"model {info.name}", fix="train it by train-model") from error


def count_fields(task: Any) -> list[pa.Field]:
    """A column for each number that is kept of an image."""
    return [table_field(name, pa.int64(), _doc(name)) for name in task.kept_names]


def _doc(name: str) -> str:
    kind, _, rest = name.partition("_")
    if kind == "matched":
        return f"true objects that a predicted one matches with an IoU of 0.{rest} or more"
    if kind == "pixels":
        truth, _, told = rest.partition("_as_")
        return f"pixels of the class {truth} that were told to be {told}"
    return f"{name.replace('_', ' ')} of the image"


def counts_of(table: pa.Table, task: Any) -> Floats:
    """(N, S) of rows with the columns of `count_fields`."""
    columns = [table[name].to_numpy().astype(np.float64) for name in task.kept_names]
    return np.stack(columns, axis=1)

"""An evaluation over an image set as the two stages that an executor runs: the images to judge, and the model.

Classes are judged as those of sequences are, by the column `label`. Objects are judged by the set's masks: of each
image the row keeps the counts from which the task tells its figures in training, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.errors import DataError, InputError
from engine.io.source import Shard
from engine.models._info import HeadInfo, ModelInfo
from engine.runtime.stages import ShardOutput
from engine.scoring._finished_rows import FinishedRows
from engine.scoring._predict_stages import Skipped, rows_table, shard_output
from engine.scoring._prediction_columns import columns_of, head_arrays
from engine.training._evaluate_stages import ChosenSplit, RowChoice, truths, values_of
from engine.training._evaluation import AnyJudged, Judged
from engine.training._image_set import ImageReader
from engine.training._object_evaluation import JudgedObjects, count_fields, counts_of, segmentation_of
from engine.training._predict_images import ImageAnswerer, ImageBatch, ImageBatchReader, ImageRows, PredictImagesStages
from engine.training._predict_images_job import RESULT_VERSION as PREDICT_VERSION
from schemas import states, tables

AUDITED = ("group", "label", "plate", "well", "field", "folder", "t", "z", "num_objects", "id")
_MORE_COLUMNS = tuple(name for name in AUDITED if name not in tables.IMAGE_PREDICTIONS.names)


@dataclass(frozen=True)
class EvaluateImagesStages:
    """Everything both stages need; picklable, opened once per process. See EvaluateStages, whose place it takes.

    Attributes:
        net: the model, and the labelled set.
        split: the rows to judge; None judges all.
    """

    net: PredictImagesStages
    split: ChosenSplit | None = None

    kind = noun = holds = "images"
    table = ("image_evaluation_rows", tables.IMAGE_PREDICTIONS_VERSION)
    predict_version = PREDICT_VERSION
    predictions = None

    @property
    def data(self) -> FinishedRows:
        """The labelled set."""
        return self.net.rows

    @property
    def info(self) -> ModelInfo:
        """The model's description."""
        return self.net.info

    @property
    def head(self) -> HeadInfo:
        """The one head."""
        return self.net.head

    @cached_property
    def task(self) -> Any:
        """What objects are judged by; None for classes."""
        return segmentation_of(self.info) if self.net.finds_objects else None

    def check(self) -> None:
        """Refuse what does not go together; loads no weights.

        Raises:
            InputError: as PredictImagesStages.check has it, or the set has no truth of this kind.
        """
        self.net.check()
        data = self.net.images
        if self.task is not None and data.mask_dtype is None:
            raise InputError("the set has no masks to judge by", where=data.path, fix="make it anew with --masks")
        if self.task is None and self.head.activation != "softmax":
            what = f"head {self.head.name!r} tells no classes"
            raise InputError(what, where=f"model {self.info.name}", fix="give one of image_classification")
        if self.task is None and data.labels.null_count == len(data):
            raise InputError("the set has no labels to judge by", where=data.path, fix="make it anew with labels")

    def cautions(self) -> list[str]:
        """None of its own."""
        return []

    def how(self) -> dict[str, Any]:
        """What of the model's work can change a figure."""
        return {name: getattr(self.net, name) for name in ("device", "precision", "micro_batch")}

    def audit_columns(self) -> tuple[str, ...]:
        """Columns of the set that figures may be given apart by."""
        return AUDITED

    def taken(self, table: pa.Table) -> tuple[Any, ...]:
        """What is kept for the figures of scored rows of `schema`."""
        if self.task is not None:
            return (counts_of(table, self.task),)
        return values_of(table, self.head), truths(table["label"], self.head)

    def judged(
        self, taken: Sequence[Any], groups: Mapping[str, Sequence[str | None]], clusters: NDArray[np.int64] | None
    ) -> AnyJudged:
        """Rows of several tables, from what `taken` kept of each."""
        joined = [np.concatenate(parts) for parts in zip(*taken, strict=True)]
        if self.task is not None:
            return JudgedObjects(self.head, self.task, joined[0], groups, clusters)
        return Judged(self.head, joined[0], joined[1], groups, clusters)

    def schema(self) -> pa.Schema:
        """Columns of the table: IMAGE_PREDICTIONS, what the audit may ask for, then classes or counts."""
        more = [tables.IMAGES.field(name) for name in _MORE_COLUMNS]
        return pa.schema([*tables.IMAGE_PREDICTIONS, *more, *self._told_fields()])

    def _told_fields(self) -> list[pa.Field]:
        return columns_of(self.head) if self.task is None else count_fields(self.task)

    def source(self) -> ImageRows:
        """The set's index as a plannable input."""
        kept = [name for name in tables.IMAGE_PREDICTIONS.names if name != "reason"]
        return ImageRows(self.data, [*kept, *_MORE_COLUMNS], weight="record")

    def choice(self) -> RowChoice:
        """Which rows are judged; reads the split file."""
        if self.split is None:
            return RowChoice(self.head, None, (), None)
        return RowChoice(self.head, self.split.load(self.data.digest), self.split.names, self.split.fold)

    def open_reader(self) -> Callable[[Shard], ImageBatch]:
        """See runtime.stages.Stages."""
        images = ImageReader(self.net.images)
        return ImageBatchReader(self.source(), images, self.choice(), with_masks=self.task is not None)

    def open_scorer(self) -> Callable[[ImageBatch], ShardOutput]:
        """See runtime.stages.Stages."""
        return _ImageScorer(self)


class _ImageScorer:
    """Builds the rows, rejects and counts of a shard."""

    def __init__(self, stages: EvaluateImagesStages) -> None:
        self._stages = stages
        self._answer = ImageAnswerer(stages.net)

    def __call__(self, batch: ImageBatch) -> ShardOutput:
        before, skipped = self._answer.halved, dict(batch.skipped)
        found: dict[int, Any] = {}
        for row, values in self._answer(batch, skipped):
            found[row] = values if self._stages.task is None else self._counts(batch, row, values, skipped)
        rows = range(batch.columns.num_rows)
        told = [None if row in skipped else found[row] for row in rows]
        if self._stages.task is None:
            columns = head_arrays(self._stages.head, told)
        else:
            numbers = range(len(self._stages.task.kept_names))
            columns = [pa.array([None if one is None else one[n] for one in told], pa.int64()) for n in numbers]
        halved = self._answer.halved - before
        return shard_output(
            rows_table(batch.columns, skipped, columns, self._stages.schema()),
            skipped,
            ids=batch.columns["id"],
            notes={"halved_batches": halved} if halved else {},
        )

    def _counts(
        self, batch: ImageBatch, row: int, values_KYX: NDArray[np.float32], skipped: dict[int, Skipped]
    ) -> list[int] | None:
        """What the task keeps of an image."""
        task, record = self._stages.task, batch.columns["record"][row].as_py()
        try:
            targets = task.targets(batch.masks[row][None], records=np.array([record]), where=self._stages.data.uri)
        except DataError as error:
            skipped[row] = Skipped(states.REJECTED, "unreadable_mask", str(error))
            return None
        kept_BS, _ = task.kept(values_KYX[None].astype(np.float64), task.stack(list(targets)))
        counts: list[int] = np.rint(kept_BS[0]).astype(np.int64).tolist()
        return counts

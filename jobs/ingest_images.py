"""Turn images into one checked image set: source -> decode -> judge -> sink -> commit."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.ingest._image_naming import Naming
from engine.ingest._image_rules import Cutting, ImageRules
from engine.ingest._image_table import ImageTable, TableColumns
from engine.ingest.image_job import JOB, RESULTS, ImageJob, ImageOptions
from engine.ingest.images import SCHEMA_NAME, ImageInput
from engine.io.image_sources import Reading
from engine.runtime.commit import commit, finished_outcome
from engine.runtime.inputs import local_input
from engine.runtime.install import check_installation
from engine.runtime.run import Execution, PlanLine, Run, RunContext, RunOutcome, open_run
from schemas import tables
from schemas.jobs.ingest_images import IngestImagesSpec


def run(spec: IngestImagesSpec, context: RunContext) -> RunOutcome:
    """Run or resume the job; a finished run is left as it is.

    Raises:
        ReplisomeError: in one sentence; its `exit_code` is the command's.
    """
    with open_run(spec.output, job=JOB, context=context) as run:
        job = _planned(spec, context, run)
        if run.finished():
            return _told(finished_outcome(run))
        job.publish(run)
        run.execute(
            job.stages,
            schema_name=SCHEMA_NAME,
            schema_version=tables.IMAGES_VERSION,
            execution=job.execution,
            max_reject_fraction=spec.max_reject_fraction,
        )
        return _told(commit(run, finish=job.finish(run), report=job.report(run), facts=job.facts()))


def plan(spec: IngestImagesSpec, context: RunContext) -> list[PlanLine]:
    """Cut or take up the plan, and say for each shard whether it would run."""
    with open_run(spec.output, job=JOB, context=context) as run:
        _planned(spec, context, run, only_look=True)
        return run.lines()


def _planned(spec: IngestImagesSpec, context: RunContext, run: Run, *, only_look: bool = False) -> ImageJob:
    check_installation()
    wide = spec.execution
    execution = Execution(wide.executor, wide.workers or len(os.sched_getaffinity(0)), wide.address or "local")
    table = _table(spec, run)
    options = ImageOptions(_rules(spec, table), _cutting(spec), context.command)
    job = ImageJob(input_of(spec), table, options, execution=execution)
    job.plan(run)
    run.freeze(job.key(), _frozen(spec), results=RESULTS, choices=job.choices(), only_look=only_look)
    return job


def input_of(spec: IngestImagesSpec) -> ImageInput:
    """What the spec says of the images and how to read them."""
    given, labels, masks = spec.input, spec.labels, spec.masks
    reading = Reading(
        max_pixels=given.max_pixels,
        plates=given.plates,
        projections=given.projections,
        image_array=given.image_array,
        mask_array=masks.array,
        label_array=given.label_array,
        mask_channel=masks.channel,
        mask_regions=masks.objects == "regions",
        label_image=masks.label_image,
        fill_missing=given.missing_chunks == "fill",
    )
    folder = None if masks.folder is None else str(Path(masks.folder).expanduser().absolute())
    naming = Naming(
        label_from_folder=labels.from_folder,
        label_pattern=_pattern(labels.pattern, "labels.pattern"),
        group_pattern=_pattern(labels.group_pattern, "labels.group_pattern"),
        masks=None if labels.mask_column is not None else folder,
    )
    volumes = None if given.stacks is None else given.stacks == "volumes"
    return ImageInput(tuple(_folder(text) for text in given.folders), folder, reading, volumes, naming)


def _folder(text: str) -> str:
    if "://" in text:
        fix = "copy it to a local disk, or mount it"
        raise InputError("images are read from local folders", where=text, fix=fix)
    path = Path(text).expanduser()
    if not path.exists():
        raise InputError("the folder is not there", where=text, fix="check the path")
    return str(path.absolute())


def _pattern(text: str | None, key: str) -> str | None:
    try:
        re.compile(text or "")
    except re.error as error:
        raise InputError(f"{text!r} is no regular expression ({error})", where=key, fix="mend it") from None
    return text


def _table(spec: IngestImagesSpec, run: Run) -> ImageTable | None:
    labels = spec.labels
    if labels.table is None:
        return None
    columns = TableColumns(labels.file_column, labels.label_column, labels.group_column, labels.mask_column)
    return ImageTable.load(local_input(labels.table, run.store), columns)


def _rules(spec: IngestImagesSpec, table: ImageTable | None) -> ImageRules:
    rules, labels, masks = spec.cleaning, spec.labels, spec.masks
    asks_label = labels.from_folder or labels.pattern or rules.classes or spec.input.label_array
    asks_mask = masks.folder or masks.label_image or masks.array
    has = ImageTable({}, False, False, False, "") if table is None else table
    return ImageRules(
        dtype=rules.dtype,
        channels=rules.channels,
        size_px=rules.size_px,
        sizes=rules.sizes,
        duplicates=rules.duplicates,
        keep_empty=rules.keep_empty,
        classes=rules.classes,
        needs_label=bool(asks_label or has.has_label) and not rules.allow_missing,
        needs_mask=bool(asks_mask or has.has_mask),
    )


def _cutting(spec: IngestImagesSpec) -> Cutting:
    wide = spec.execution
    return Cutting(spec.store.layout, wide.images_per_shard, wide.bytes_per_shard, spec.store.tile_px)


def _frozen(spec: IngestImagesSpec) -> dict[str, Any]:
    """The spec as run.json keeps it: without what only says how wide to run."""
    return spec.model_dump(mode="json", exclude={"output": True, "execution": {"executor", "workers", "address"}})


def _told(outcome: RunOutcome) -> RunOutcome:
    """The store is told as one result, not file by file."""
    names = dict.fromkeys(f"{name.partition('/')[0]}/" if "/" in name else name for name in outcome.results)
    return replace(outcome, results=list(names))

"""Image sets as training reads them: every sample once, the same for any number of workers."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.encoders.pixels import Pixels, PixelsParams
from engine.errors import DataError, InputError
from engine.training._batches import BatchLoader
from engine.training._image_augmentation import ImageAugmentation
from engine.training._recipe import Recipe
from engine.training._split_table import SplitTable
from engine.training._train_job import Card, Component, TrainJob, prepare
from engine.training.kinds import images
from engine.training.kinds.images import KIND
from engine.training.tasks.image_classification import ImageClassification, ImageClassificationParams
from engine.training.tasks.image_segmentation import ImageSegmentation, ImageSegmentationParams
from tests.toys.image_sets import CLASSES, NUM, classed, classed_set, dot_set, dots, split_of

torch.set_num_threads(1)

RECIPE = Recipe(epochs=2, batch_size=4, micro_batch=4, learning_rate=1e-3, window=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dots")
    dot_set(folder, NUM, "--images-per-shard", "5")
    split_of(folder)
    return folder


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    classed_set(folder)
    split_of(folder, "tttvvx")
    return folder


def job(folder: Path, **changes) -> TrainJob:
    made = TrainJob(
        data=str(folder / "set"),
        splits=str(folder / "splits.parquet"),
        fold=None,
        task=Component("image_segmentation", {"boundary_px": 1}),
        encoder=Component("pixels", {"scale": "values", "low": 200.0, "high": 1000.0}),
        model=Component("u_net", {"channels": 4, "levels": 2}),
        recipe=RECIPE,
        augmentation={},
        members=1,
        card=Card("toy", "Apache-2.0"),
        output=folder / "out",
    )
    return replace(made, **changes)


def of_classes(folder: Path, **changes) -> TrainJob:
    given = {
        "task": Component("image_classification", {}),
        "encoder": Component("pixels", {"channels": 3}),
        "model": Component("image_cnn", {"channels": 4, "levels": 2}),
        **changes,
    }
    return job(folder, **given)


def number_of(data, record: int) -> int:
    return int(Path(str(data.ids[int(data.places([record])[0])])).stem)


def test_every_sample_comes_once_as_it_was_ingested(folder, monkeypatch):
    monkeypatch.setattr(images, "_GROUP_BYTES", 3 * 24 * 24 * 2)
    setup = prepare(job(folder)).setup
    assert {len(group.rows) for group in setup.train} <= {1, 2, 3}
    plan, loader = setup.train_plan(), pickle.loads(pickle.dumps(setup.train_loader()))
    seen = []
    for step in range(plan.num_steps):
        batch = loader.load(plan.step(0, step), epoch=0)
        for record, pixels, mask in zip(batch.records_B, batch.inputs.pixels_BCYX, batch.targets, strict=True):
            wanted = dots(number_of(setup.data, record))
            np.testing.assert_array_equal(pixels[0], wanted[0])
            np.testing.assert_array_equal(mask, wanted[1])
        seen += batch.records_B.tolist()
    assert sorted(seen) == sorted(record for group in setup.train for record in group.records.tolist())
    assert len(seen) == 20
    assert batch.inputs.told() == f"{len(batch)} images of 1 x 24 x 24 pixels"
    assert batch.part(1, 3).inputs.pixels_BCYX.shape[0] == 2


def test_classes_and_colours(two_classes):
    setup = prepare(of_classes(two_classes)).setup
    assert setup.task.outputs == CLASSES
    batch = setup.train_loader().load(np.arange(12), epoch=0)
    for record, pixels, target in zip(batch.records_B, batch.inputs.pixels_BCYX, batch.targets, strict=True):
        number = number_of(setup.data, record)
        np.testing.assert_array_equal(pixels, classed(number).transpose(2, 0, 1))
        assert target == number % 2


def test_augmentation_belongs_to_sample_and_epoch(folder):
    vary = {"flip": True, "turn": True, "crop_px": 12, "brightness": 0.3}
    setup = prepare(job(folder, augmentation=vary)).setup
    loader = setup.train_loader()
    whole, other = loader.load(np.arange(20), epoch=3), loader.load(np.arange(20), epoch=4)
    assert whole.inputs.pixels_BCYX.shape == (20, 1, 12, 12)
    assert whole.targets.shape == (20, 12, 12)
    part = loader.load(np.array([7, 2]), epoch=3)
    np.testing.assert_array_equal(part.inputs.pixels_BCYX, whole.inputs.pixels_BCYX[[7, 2]])
    np.testing.assert_array_equal(part.targets, whole.targets[[7, 2]])
    assert (whole.inputs.pixels_BCYX != other.inputs.pixels_BCYX).any()
    judged = setup.loader_of(setup.validation).load(np.arange(2), epoch=0)
    assert judged.inputs.pixels_BCYX.shape == (2, 1, 24, 24)
    bright = whole.inputs.pixels_BCYX[:, 0] > 500
    # Pixels and masks went the same way.
    assert ((whole.targets > 0) == bright).mean() > 0.99


def test_nothing_is_a_batch_too(folder):
    setup = prepare(job(folder)).setup
    batch = setup.train_loader().load(np.zeros(0, np.int64), epoch=0)
    assert len(batch) == len(batch.inputs) == len(batch.targets) == 0
    (x,) = KIND.blank(setup.build_encoder(), torch.device("cpu"))
    assert setup.build_model().eval().logits(x).shape == (1, 3, 1, 1)


def test_large_images_go_through_the_network_one_by_one(folder, monkeypatch):
    assert prepare(job(folder)).setup.recipe.micro_batch == RECIPE.micro_batch
    for room, fit in ((3 * 24 * 24 * 2, 3), (100, 1)):
        monkeypatch.setattr(KIND, "together_bytes", room, raising=False)
        assert prepare(job(folder)).setup.recipe.micro_batch == fit


def test_what_an_epoch_holds_is_bounded(folder):
    setup = prepare(job(folder)).setup
    assert KIND.wire_bytes(setup.train) == 24 * 24 * 2
    reader = KIND.reader(setup.data, encoder=setup.build_encoder(), task=setup.task, augmentation=None)
    held = reader.read(setup.train[0])
    assert held.nbytes == len(setup.train[0].rows) * 24 * 24 * (2 + 4)
    loader = BatchLoader(setup.train, setup.train_plan(), reader, seed=0, cache_bytes=1)
    loader.load(np.arange(20), epoch=0)
    assert len(loader._held) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"encoder": Component("pixels", {"channels": 3})}, "the images have 1 channels, and the encoder is told 3"),
        ({"encoder": Component("one_hot", {})}, "OneHot does not read images; set it to pixels"),
        ({"model": Component("sequence_cnn", {})}, "'sequence_cnn' is not trained on images by this task"),
        ({"augmentation": {"crop_px": 25}}, "a crop of 25 pixels does not fit images of 24 x 24"),
        ({"augmentation": {"jitter_bp": 2}}, "images are not varied by jitter_bp"),
        ({"task": Component("image_classification", {})}, "the training rows hold 0 classes in the column 'label'"),
        ({"model": Component("u_net", {"in_channels": 2})}, "'in_channels' follows from the data and the task"),
    ],
)
def test_what_does_not_go_together_is_refused(folder, changes, told):
    with pytest.raises(InputError, match=told):
        prepare(job(folder, **changes))


def test_a_set_without_masks_has_no_objects_to_learn(two_classes):
    with pytest.raises(InputError, match="the set has no masks; make it anew with --masks"):
        prepare(of_classes(two_classes, task=Component("image_segmentation", {})))


def test_a_network_of_the_wrong_level_is_refused(two_classes, folder):
    with pytest.raises(
        InputError, match="'u_net' gives a value for every pixel, and the task wants one for every image"
    ):
        prepare(of_classes(two_classes, model=Component("u_net", {})))
    with pytest.raises(
        InputError, match="'image_cnn' gives a value for every image, and the task wants one for every pixel"
    ):
        prepare(job(folder, model=Component("image_cnn", {})))


def test_a_class_outside_the_list_names_the_record(two_classes):
    data = KIND.open(str(two_classes / "set"))
    splits = KIND.index_splits(data, SplitTable.load(str(two_classes / "splits.parquet"), data))
    group = splits["train"][0]
    task = ImageClassification(ImageClassificationParams(), ("bright", "red"), (1, 1))
    with pytest.raises(DataError, match=rf"{two_classes}.*record \d+ has label 'dark', the classes are bright, red"):
        task.targets(KIND.targets(data, group, "label"), records=group.records, where=group.part)


def test_a_lost_or_damaged_chunk_names_itself(folder, tmp_path):
    copy = tmp_path / "set"
    shutil.copytree(folder / "set", copy)
    setup = prepare(replace(job(folder), data=str(copy))).setup
    shard = next(path for path in sorted((copy / "images.zarr" / "0" / "c").rglob("*")) if path.is_file())
    content = bytearray(shard.read_bytes())
    content[20] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=str(shard.relative_to(copy))):
        setup.train_loader().load(np.arange(20), epoch=0)
    shard.unlink()
    with pytest.raises(DataError, match=str(shard.relative_to(copy))):
        setup.train_loader().load(np.arange(20), epoch=0)


def test_images_of_several_sizes_or_depths_are_refused(folder):
    data = KIND.open(str(folder / "set"))
    with pytest.raises(InputError, match="of several sizes; ingest them with --sizes one"):
        KIND.decided(replace(data, shape=None), Pixels(PixelsParams()), ImageAugmentation())
    with pytest.raises(InputError, match="volumes, 1 x 5 x 24 x 24; ingest them with --stacks planes"):
        KIND.decided(replace(data, shape=(1, 5, 24, 24)), Pixels(PixelsParams()), ImageAugmentation())
    floats = replace(data, dtype=np.dtype(np.float32))
    told = (
        r"'encoder.params.scale': scale 'range' is that of whole numbers, and the pixels are float32; set it to values"
    )
    with pytest.raises(InputError, match=told):
        KIND.decided(floats, Pixels(PixelsParams()), ImageAugmentation())
    assert KIND.decided(floats, Pixels(PixelsParams(scale="standard")), ImageAugmentation()) == {"in_channels": 1}


def test_masks_are_learned_from_the_training_rows_alone(folder):
    setup = prepare(job(folder)).setup
    mine = [number_of(setup.data, record) for group in setup.train for record in group.records]
    again = ImageSegmentation.fit(ImageSegmentationParams(boundary_px=1), [np.stack([dots(n)[1] for n in mine])])
    assert setup.task == again


@pytest.mark.ray
def test_ray_data_feeds_what_a_reader_reads(ray_cluster, folder):
    from engine.training._batches import Reader
    from engine.training._ray_feed import DataFeed, desk

    setup = prepare(job(folder, augmentation={"crop_px": 12, "flip": True, "contrast": 0.2})).setup
    plan = setup.train_plan()
    with desk(setup, num_workers=2, epoch=1, step=1) as reads:
        feeds = [DataFeed(reads, rank=rank, num_steps=plan.num_steps, epochs=2) for rank in (0, 1)]
        found = list(zip(*(feed(epoch=1, first_step=1) for feed in feeds), strict=True))
    readers = [Reader(setup.train_loader(), plan, rank, 2) for rank in (0, 1)]
    wanted = list(zip(*(reader(epoch=1, first_step=1) for reader in readers), strict=True))
    assert len(found) == len(wanted) == plan.num_steps - 1
    for one, other in zip(sum(found, ()), sum(wanted, ()), strict=True):
        np.testing.assert_array_equal(one.inputs.pixels_BCYX, other.inputs.pixels_BCYX)
        np.testing.assert_array_equal(one.targets, other.targets)
        assert one.records_B.tolist() == other.records_B.tolist()

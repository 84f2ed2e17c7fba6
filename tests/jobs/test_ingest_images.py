"""ingest-images as a user runs it: what it keeps, what it says of the rest, and the promises of the run protocol."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from PIL import Image

from engine.errors import DataError
from engine.io.zarr_reader import CheckedArray
from engine.runtime.run import RunContext
from engine.runtime.verify import verify
from jobs import ingest_images
from schemas.jobs.ingest_images import IngestImagesSpec
from tests.toys import bit_flips
from tests.toys.pictures import GUID, imagexpress, labels, ome_plate, ome_zarr, pixels, save
from tests.toys.runs import assert_same_results, result_bytes
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

QUIET = ("--progress", "none")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good images in two classes with masks, and one of every kind that is refused."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(8):
        name = f"{'ab'[number % 2]}/{number}.png"
        save(folder / "images" / name, pixels(number))
        save(folder / "masks" / name, labels(number))
    save(folder / "images" / "a" / "tiff.tif", pixels(20))
    save(folder / "masks" / "a" / "tiff.tiff", labels(20))
    bad = folder / "images" / "b"
    save(bad / "again.png", pixels(1))
    save(folder / "masks" / "b" / "again.png", labels(1))
    save(folder / "images" / "a" / "conflict.png", pixels(1))
    save(folder / "masks" / "a" / "conflict.png", labels(1))
    for name, array in {
        "colour.png": pixels(30, (24, 20, 3)),
        "deep.png": pixels(31, dtype="uint16"),
        "flat.png": np.full((24, 20), 7, np.uint8),
        "large.png": pixels(32, (25, 20)),
        "nomask.png": pixels(33),
        "maskshape.png": pixels(34),
        "badmask.png": pixels(35),
    }.items():
        save(bad / name, array)
        if name != "nomask.png":
            save(folder / "masks" / "b" / name, labels(40, array.shape[:2]))
    save(folder / "masks" / "b" / "maskshape.png", labels(41, (20, 24)))
    (folder / "masks" / "b" / "badmask.png").write_bytes(b"no image")
    cut = (bad / "colour.png").read_bytes()
    (bad / "cut.png").write_bytes(cut[:200])
    (bad / "empty.png").write_bytes(b"")
    (bad / "text.jpg").write_text("no image")
    (folder / "images" / "notes.txt").write_text("left out")
    return folder


WHY = {
    "b/again.png": "duplicate_pixels",
    "a/conflict.png": None,  # the first of its pixels; b/1.png and b/again.png come behind it
    "b/1.png": "conflicting_pixels",
    "b/colour.png": "channels_differ",
    "b/deep.png": "dtype_differs",
    "b/flat.png": "empty_image",
    "b/large.png": "size_differs",
    "b/nomask.png": "missing_mask",
    "b/maskshape.png": "mask_shape_differs",
    "b/badmask.png": "unreadable_mask",
    "b/cut.png": "unreadable",
    "b/empty.png": "unreadable",
    "b/text.jpg": "unreadable",
}


def arguments(pictures: Path, output: Path, *more: str) -> list[str]:
    """A run over the hostile folder with shards small enough to be several."""
    return [
        *("ingest-images", str(pictures / "images"), "--masks", str(pictures / "masks"), "--label-from-folder"),
        *("-o", str(output), "--images-per-shard", "3", "--max-rejects", "1", *QUIET, *more),
    ]


@pytest.fixture(scope="session")
def calm_images(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("images") / "out"
    done = replisome(*arguments(pictures, output, "--workers", "1"))
    assert (done.returncode, done.stderr) == (0, "")
    return output


def index_of(output: Path) -> list[dict]:
    return pq.read_table(output / "index.parquet").to_pylist()


def read_image(path: Path) -> np.ndarray:
    """A second reader."""
    return tifffile.imread(path) if path.suffix.startswith(".tif") else np.asarray(Image.open(path))


def test_every_image_is_answered_for(pictures, calm_images):
    rows = index_of(calm_images)
    files = {
        path.relative_to(pictures / "images").as_posix()
        for path in (pictures / "images").rglob("*")
        if path.is_file() and path.suffix != ".txt"
    }
    assert [row["id"] for row in rows] == sorted(files)
    assert [row["record"] for row in rows] == list(range(len(rows)))
    reasons = {row["id"]: row["reason"] for row in rows}
    # b/again.png repeats the pixels of a/conflict.png under another label.
    assert reasons == dict.fromkeys(files) | WHY | {"b/again.png": "conflicting_pixels"}
    assert {row["state"] for row in rows if row["reason"]} == {"rejected"}
    assert all(row["sentence"] for row in rows if row["reason"])
    manifest = json.loads((calm_images / "manifest.json").read_text())
    kept = sum(row["reason"] is None for row in rows)
    assert manifest["totals"]["states"] == {"kept": kept, "rejected": len(rows) - kept}
    parts = [pq.read_table(path) for path in sorted((calm_images / "data").rglob("*.parquet"))]
    assert [row for part in parts for row in part.to_pylist()] == rows
    assert len(parts) > 2
    rejects = [pq.read_table(path).to_pylist() for path in sorted((calm_images / "rejects").rglob("*.parquet"))]
    assert {one["text"]: one["reason"] for some in rejects for one in some} == {
        name: reason for name, reason in reasons.items() if reason
    }


def test_zarr_reads_the_pixels_that_other_readers_read(pictures, calm_images):
    images = zarr.open_group(calm_images / "images.zarr", mode="r")
    ours = CheckedArray(calm_images / "images.zarr", "0")
    kept = [row for row in index_of(calm_images) if row["reason"] is None]
    assert images["0"].shape == (len(kept), 1, 24, 20)
    assert images["labels/masks/0"].dtype == np.uint16
    for row in kept:
        judge = read_image(pictures / "images" / row["id"])
        np.testing.assert_array_equal(images["0"][row["row"], 0], judge)
        np.testing.assert_array_equal(ours.row(row["row"])[0], judge)
        mask = read_image(pictures / "masks" / row["mask"])
        np.testing.assert_array_equal(images["labels/masks/0"][row["row"]], mask)
        assert row["num_objects"] == len(set(np.unique(mask).tolist()) - {0})
        assert (row["minimum"], row["maximum"]) == ([float(judge.min())], [float(judge.max())])
        assert row["mean"][0] == pytest.approx(judge.mean(), rel=1e-9)
        assert row["standard_deviation"][0] == pytest.approx(judge.std(), rel=1e-9)
        assert row["label"] == row["id"][0]


def test_the_card_counts_what_the_index_holds(calm_images):
    card = json.loads((calm_images / "card.json").read_text())
    rows = index_of(calm_images)
    kept = [row for row in rows if row["reason"] is None]
    assert (card["records"], card["kept"]) == (len(rows), len(kept))
    assert card["classes"] == {label: sum(row["label"] == label for row in kept) for label in "ab"}
    assert card["passed_over"] == {"files .txt": 1}
    stored = zarr.open_array(calm_images / "images.zarr" / "0", mode="r")[:]
    (channel,) = card["channels"]
    assert channel["mean"] == pytest.approx(stored.mean())
    assert channel["standard_deviation"] == pytest.approx(stored.std())
    page = (calm_images / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(kept)
    assert f'data-key="kept">{len(kept)}<' in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


@pytest.mark.parametrize("workers", ["2", "3"])
def test_any_number_of_workers(pictures, calm_images, tmp_path, workers):
    done = replisome(*arguments(pictures, tmp_path / "out", "--workers", workers))
    assert (done.returncode, done.stderr) == (0, "")
    assert_same_results(tmp_path / "out", calm_images)


FAULTS = [
    "kill@before-part#1",
    "kill-parent@before-part#1",
    "kill-parent@mid-part#2",
    "kill-parent@after-part#2",
    "kill@between-parts#2",
    "kill@before-manifest",
    "kill@after-manifest",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_killed_at_any_point_and_resumed(pictures, calm_images, tmp_path, fault):
    words = arguments(pictures, tmp_path / "out", "--workers", "2")
    killed = replisome(*words, fault=fault, once=tmp_path / "once")
    assert (tmp_path / "once").exists(), "the fault did not strike"
    worker_only = fault.startswith("kill@before-part")
    assert killed.returncode == (0 if worker_only else -signal.SIGKILL)
    again = replisome(*words)
    assert again.returncode == 0, again.stderr
    assert_same_results(tmp_path / "out", calm_images)
    assert verify(str(tmp_path / "out")).problems == []


@pytest.mark.parametrize("number", range(1, 30, 3))
def test_a_full_disk_at_any_write_is_resumable(pictures, calm_images, tmp_path, number):
    words = arguments(pictures, tmp_path / "out")
    stopped = replisome_here(*words, fault=f"enospc@write#{number}")
    if stopped.returncode:
        assert_one_sentence(stopped, 4, "the disk is full")
    again = replisome_here(*words)
    assert again.returncode == 0, again.stderr
    assert_same_results(tmp_path / "out", calm_images)


def test_results_depend_on_no_path(pictures, calm_images, tmp_path):
    shutil.copytree(pictures, tmp_path / "elsewhere")
    done = replisome_here(*arguments(tmp_path / "elsewhere", tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", calm_images)


def test_flipped_bits_are_seen_by_verify(calm_images, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(calm_images, output)
    found = bit_flips.kinds(output)
    for kind in ("images.zarr", "index.parquet", "card.json"):
        bit_flips.check_kind(output, found[kind], seed=3)


def test_a_shard_damaged_before_the_commit_is_no_result(pictures, tmp_path):
    words = arguments(pictures, tmp_path / "out")
    stopped = replisome(*words, fault="kill@before-manifest", once=tmp_path / "once")
    assert stopped.returncode == -signal.SIGKILL
    shard = next(path for path in sorted((tmp_path / "out/images.zarr/0/c").rglob("*")) if path.is_file())
    data = bytearray(shard.read_bytes())
    data[3] ^= 8
    shard.write_bytes(data)
    done = replisome_here(*words)
    assert_one_sentence(done, 2, "missing or damaged.*delete data/000/part-000000.parquet and run again")
    (tmp_path / "out/data/000/part-000000.parquet").unlink()
    assert replisome_here(*words).returncode == 0
    assert verify(str(tmp_path / "out")).problems == []


def test_a_lost_index_is_made_anew(pictures, calm_images, tmp_path):
    words = arguments(pictures, tmp_path / "out")
    assert replisome(*words, fault="kill@between-parts", once=tmp_path / "once").returncode == -signal.SIGKILL
    (tmp_path / "out" / "index.parquet").unlink()
    done = replisome_here(*words)
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", calm_images)


def test_a_changed_input_is_another_run(pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "in")
    words = arguments(tmp_path / "in", tmp_path / "out")
    assert replisome_here(*words).returncode == 0
    assert "finished before" in replisome_here(*words).stdout
    save(tmp_path / "in" / "images" / "a" / "new.png", pixels(77))
    assert_one_sentence(replisome_here(*words), 2, "this folder holds a run that computes something else: input was")
    done = replisome_here(*words, "--force")
    assert done.returncode == 0, done.stderr
    assert "a/new.png" in {row["id"] for row in index_of(tmp_path / "out")}
    assert_one_sentence(replisome_here(*words, "--keep-empty"), 2, "rules.keep_empty was")


def test_force_leaves_no_shard_of_the_former_set(pictures, tmp_path):
    assert replisome_here(*arguments(pictures, tmp_path / "out")).returncode == 0
    done = replisome_here(*arguments(pictures, tmp_path / "out", "--layout", "images", "--force"))
    assert done.returncode == 0, done.stderr
    found = verify(str(tmp_path / "out"))
    assert (found.problems, found.unlisted) == ([], [])


def test_too_many_rejects_stop_the_run_and_can_be_resumed(pictures, calm_images, tmp_path):
    words = arguments(pictures, tmp_path / "out")
    strict = [*words, "--set", "max_reject_fraction=0.1"]
    assert_one_sentence(replisome_here(*strict), 3, "more than the limit of 10.00%")
    assert replisome_here(*words).returncode == 0
    assert_same_results(tmp_path / "out", calm_images)


def run_over(folder: Path, output: Path, *more: str) -> list[dict]:
    done = replisome_here("ingest-images", str(folder), "-o", str(output), *QUIET, *more)
    assert done.returncode == 0, done.stderr
    assert verify(str(output)).problems == []
    return index_of(output)


def test_a_plate_keeps_its_wells_and_fields(tmp_path):
    imagexpress(tmp_path / "in", channels=2, steps=2, times=2)
    rows = run_over(tmp_path / "in", tmp_path / "out")
    assert len(rows) == 8
    plate = zarr.open_group(tmp_path / "out" / "images.zarr", mode="r")
    told = plate.attrs["ome"]["plate"]
    assert [well["path"] for well in told["wells"]] == ["A/01", "B/02"]
    for row in rows:
        array = plate[row["array"]]
        assert array.shape == (2, 2, 2, 24, 20)
        assert (row["shape"], row["row"], row["t"]) == ([2, 2, 24, 20], row["t"], row["t"])
        assert row["group"] == f"toy/{row['well']}"
        for channel in range(2):
            for step in range(2):
                folder = tmp_path / "in" / f"TimePoint_{row['t'] + 1}" / f"ZStep_{step + 1}"
                judge = tifffile.imread(folder / f"toy_{row['well']}_s{row['field']}_w{channel + 1}{GUID}.tif")
                np.testing.assert_array_equal(array[row["row"], channel, step], judge)
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["plates"] == [{"plate": "toy", "wells": 2, "fields": 4}]
    assert card["passed_over"]["projections of a plate"] == 16


def test_a_plate_may_be_one_array_for_training(tmp_path):
    imagexpress(tmp_path / "in", channels=2)
    (tmp_path / "wells.csv").write_text("well,label\nA01,control\nB02,drug\n")
    table = ("--table", str(tmp_path / "wells.csv"))
    rows = run_over(tmp_path / "in", tmp_path / "out", "--layout", "array", *table)
    assert [row["label"] for row in rows] == ["control"] * 2 + ["drug"] * 2
    assert zarr.open_array(tmp_path / "out/images.zarr/0", mode="r").shape == (4, 2, 24, 20)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_stores_become_a_set(tmp_path, version):
    arrays = [pixels(number, (2, 9, 7)) for number in range(4)]
    ome_plate(tmp_path / "in" / "p.zarr", {"A/1": arrays[:2], "B/2": arrays[2:]}, version=version)
    rows = run_over(tmp_path / "in", tmp_path / "out")
    plate = zarr.open_group(tmp_path / "out" / "images.zarr", mode="r")
    assert [row["array"] for row in rows] == ["A/1/0/0", "A/1/1/0", "B/2/0/0", "B/2/1/0"]
    for row, array in zip(rows, arrays, strict=True):
        np.testing.assert_array_equal(plate[row["array"]][0], array)
        assert row["pixel_size_um"] == [0.5, 0.5]


def test_stacks_become_planes_or_volumes(tmp_path):
    stack = pixels(1, (3, 2, 9, 7))
    ome_zarr(tmp_path / "in" / "s.zarr", stack, "zcyx".replace("zc", "cz"), chunk=4)
    planes = run_over(tmp_path / "in", tmp_path / "planes")
    assert [row["id"] for row in planes] == ["s.zarr:z0", "s.zarr:z1"]
    assert {row["group"] for row in planes} == {"s.zarr"}
    whole = zarr.open_array(tmp_path / "planes/images.zarr/0", mode="r")[:]
    np.testing.assert_array_equal(whole, np.moveaxis(stack, 1, 0))
    (volume,) = run_over(tmp_path / "in", tmp_path / "volumes", "--stacks", "volumes")
    assert volume["shape"] == [3, 2, 9, 7]
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "volumes/images.zarr/0", mode="r")[0], stack)


def test_label_images_of_stores_are_masks(tmp_path):
    for number in range(3):
        folder = ome_zarr(tmp_path / "in" / f"{number}.zarr", pixels(number, (2, 24, 20)), "cyx")
        if number < 2:
            ome_zarr(folder / "labels" / "cells", labels(number).astype(np.uint32), "yx")
    rows = run_over(tmp_path / "in", tmp_path / "out", "--label-image", "cells", "--max-rejects", "0.5")
    assert [row["reason"] for row in rows] == [None, None, "missing_mask"]
    masks = zarr.open_array(tmp_path / "out/images.zarr/labels/masks/0", mode="r")
    assert masks.dtype == np.uint16
    for number in range(2):
        np.testing.assert_array_equal(masks[number], labels(number))


def test_rows_of_a_plain_array_with_classes_and_masks(tmp_path):
    group = zarr.open_group(tmp_path / "set.zarr", mode="w")
    array = pixels(1, (7, 24, 20, 3))
    group.create_array("image", data=array, chunks=(2, 24, 20, 3))
    group.create_array("kind", data=np.arange(7, dtype=np.uint8) % 3)
    group.create_array("mask", data=np.stack([labels(number) for number in range(7)]), chunks=(7, 24, 20))
    more = ("--label-array", "kind", "--mask-array", "mask", "--images-per-shard", "3")
    rows = run_over(tmp_path / "set.zarr", tmp_path / "out", *more)
    assert [row["label"] for row in rows] == ["0", "1", "2", "0", "1", "2", "0"]
    stored = zarr.open_group(tmp_path / "out" / "images.zarr", mode="r")
    np.testing.assert_array_equal(np.moveaxis(stored["0"][:], 1, -1), array)
    np.testing.assert_array_equal(stored["labels/masks/0"][:], group["mask"][:])
    (tmp_path / "set.zarr" / "image" / "c" / "1" / "0" / "0" / "0").unlink()
    rows = run_over(tmp_path / "set.zarr", tmp_path / "less", *more, "--max-rejects", "0.5")
    assert [row["reason"] for row in rows] == [None, None, "missing_chunk", "missing_chunk", None, None, None]


def test_regions_of_masks_that_reuse_values_are_objects(tmp_path):
    save(tmp_path / "in" / "x.png", pixels(1))
    mask = np.zeros((24, 20, 3), np.uint8)
    mask[2:5, 2:5, 0] = mask[9:12, 9:12, 0] = 1
    mask[5:8, 2:5, 0] = 2
    save(tmp_path / "masks" / "x.png", mask)
    words = ("--masks", str(tmp_path / "masks"), "--mask-channel", "0")
    assert run_over(tmp_path / "in", tmp_path / "values", *words)[0]["num_objects"] == 2
    (row,) = run_over(tmp_path / "in", tmp_path / "regions", *words, "--mask-objects", "regions")
    assert row["num_objects"] == 3
    stored = zarr.open_array(tmp_path / "regions/images.zarr/labels/masks/0", mode="r")[0]
    assert [stored[3, 3], stored[6, 3], stored[10, 10], stored[0, 0]] == [1, 2, 3, 0]


def test_sizes_of_all_kinds_and_tiles(tmp_path):
    shapes = [(24, 20), (9, 33), (40, 40)]
    for number, shape in enumerate(shapes):
        save(tmp_path / "in" / f"{number}.tif", pixels(number, shape, "float32"))
    rows = run_over(tmp_path / "in", tmp_path / "out", "--sizes", "any", "--tile", "16")
    stored = zarr.open_group(tmp_path / "out" / "images.zarr", mode="r")
    for number, (row, shape) in enumerate(zip(rows, shapes, strict=True)):
        assert row["array"] == f"{number}/0"
        assert stored[row["array"]].chunks == (1, 1, min(16, shape[0]), min(16, shape[1]))
        np.testing.assert_array_equal(stored[row["array"]][0, 0], pixels(number, shape, "float32"))


def test_a_table_says_which_images_belong(pictures, tmp_path):
    (tmp_path / "t.tsv").write_text("path\tstage\tdonor\na/0.png\tx\td1\nb/3.png\ty\td2\nb/none.png\ty\td2\n")
    columns = ("--file-column", "path", "--label", "stage", "--group", "donor", "--max-rejects", "0.5")
    rows = run_over(pictures / "images", tmp_path / "out", "--table", str(tmp_path / "t.tsv"), *columns)
    assert [(row["id"], row["label"], row["group"], row["reason"]) for row in rows] == [
        ("a/0.png", "x", "d1", None),
        ("b/3.png", "y", "d2", None),
        ("b/none.png", "y", "d2", "missing_file"),
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere: the folder is not there"),
        (["s3://bucket/images"], "images are read from local folders"),
        (["IN", "--label-pattern", "("], "is no regular expression"),
        (["IN", "--label", "x"], "no labels.table to have them"),
        (["IN", "--layout", "plate", "--max-rejects", "1"], "not every image is a field of a plate"),
        (["IN", "--masks", "nowhere"], "the folder of masks is not there"),
        (["IN", "--layout", "tree"], "layout"),
    ],
)
def test_wrong_words_are_one_sentence(pictures, tmp_path, words, sentence):
    given = [str(pictures / "images") if word == "IN" else word for word in words]
    assert_one_sentence(replisome_here("ingest-images", *given, "-o", str(tmp_path / "out"), *QUIET), 2, sentence)


def test_plan_says_what_would_run(pictures, calm_images):
    done = replisome_here(*arguments(pictures, calm_images, "--plan", "--json"))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["action"] for line in lines} == {"skip"}
    assert sum(line["num_records"] for line in lines) == len(index_of(calm_images))


def test_the_reader_refuses_a_damaged_chunk_of_a_run(calm_images, tmp_path):
    shutil.copytree(calm_images / "images.zarr", tmp_path / "images.zarr")
    shard = next(path for path in sorted((tmp_path / "images.zarr/0/c").rglob("*")) if path.is_file())
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match="checksum of chunk"):
        CheckedArray(tmp_path / "images.zarr", "0").row(0)
    with pytest.raises(ValueError, match=r"[Cc]hecksum|crc32c"):
        zarr.open_array(tmp_path / "images.zarr/0", mode="r")[0]


@pytest.mark.ray
def test_ray_gives_the_same_bytes(ray_cluster, pictures, calm_images, tmp_path):
    spec = IngestImagesSpec.model_validate(
        {
            "input": {"folders": [str(pictures / "images")]},
            "masks": {"folder": str(pictures / "masks")},
            "labels": {"from_folder": True},
            "output": str(tmp_path / "out"),
            "max_reject_fraction": 1.0,
            "execution": {"executor": "ray", "workers": 2, "images_per_shard": 3},
        }
    )
    ingest_images.run(spec, RunContext(progress="none"))
    assert_same_results(tmp_path / "out", calm_images)


def test_results_name_no_place_of_this_machine(pictures, calm_images):
    for name, data in result_bytes(calm_images).items():
        assert str(pictures).encode() not in data, name

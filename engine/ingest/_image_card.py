"""The data card of an image set: counts, classes, shapes, intensities, objects, rejects; as JSON and as a page."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.ingest._image_facts import ImageRow
from engine.runtime.pages import render_page
from schemas import states

MAX_LISTED = 1000
MAX_SHOWN = 40
MAX_PICTURES = 24
_TEMPLATE = "image_card.html"


def card_of(index: pa.Table, *, classes: Sequence[str]) -> dict[str, Any]:
    """Plain values; the same for the same index.

    Args:
        index: rows of schemas.tables.IMAGES.
        classes: declared ones are counted even where none is found.
    """
    kept = index.filter(pc.equal(index["state"], states.KEPT))
    labels = Counter(dict.fromkeys(classes, 0))
    labels.update(label for label in kept["label"].to_pylist() if label is not None)
    reasons = Counter(reason for reason in index["reason"].to_pylist() if reason is not None)
    shapes = Counter(tuple(shape) for shape in kept["shape"].to_pylist())
    sizes = Counter(tuple(size or ()) for size in kept["pixel_size_um"].to_pylist())
    return {
        "records": index.num_rows,
        "kept": kept.num_rows,
        "rejected": index.num_rows - kept.num_rows,
        "rejected_by_reason": dict(sorted(reasons.items())),
        "classes": dict(sorted(labels.items())[:MAX_LISTED]),
        "num_classes": len(labels),
        "unlabelled": kept["label"].null_count,
        "num_groups": len(pc.unique(kept["group"].drop_null())),
        "plates": _plates(kept),
        "dtype": kept["dtype"][0].as_py() if kept.num_rows else None,
        "shapes": [{"shape": list(shape), "num": num} for shape, num in _most(shapes)],
        "num_shapes": len(shapes),
        "pixel_sizes_um": [{"size": list(size) or None, "num": num} for size, num in _most(sizes)],
        "channels": _channels(kept),
        "objects": _objects(kept),
    }


def _most(counts: Counter[tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], int]]:
    return sorted(counts.items(), key=lambda one: (-one[1], repr(one[0])))[:MAX_SHOWN]


def _plates(kept: pa.Table) -> list[dict[str, Any]]:
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for plate, well, field in zip(*(kept[name].to_pylist() for name in ("plate", "well", "field")), strict=True):
        if plate is not None:
            found[plate].add((well or "", field or ""))
    return [
        {"plate": plate, "wells": len({well for well, _ in fields}), "fields": len(fields)}
        for plate, fields in sorted(found.items())
    ][:MAX_LISTED]


def _channels(kept: pa.Table) -> list[dict[str, Any]]:
    """Over all pixels of all images, channel by channel: what a model's input is scaled by."""
    if not kept.num_rows:
        return []
    pixels = [prod(shape[1:]) for shape in kept["shape"].to_pylist()]
    columns = [kept[name].to_pylist() for name in ("minimum", "maximum", "mean", "standard_deviation")]
    names = {tuple(row or ()) for row in kept["channels"].to_pylist()}
    known = names.pop() if len(names) == 1 else ()
    total = sum(pixels)
    found = []
    for channel in range(max(len(row) for row in columns[0])):
        low, high, mean, deviation = ([row[channel] for row in column] for column in columns)
        middle = math.fsum(n * value for n, value in zip(pixels, mean, strict=True)) / total
        spread = math.fsum(
            n * (sd * sd + (value - middle) ** 2) for n, value, sd in zip(pixels, mean, deviation, strict=True)
        )
        found.append(
            {
                "name": known[channel] if channel < len(known) else str(channel),
                "min": min(low),
                "max": max(high),
                "mean": _rounded(middle),
                "standard_deviation": _rounded(math.sqrt(spread / total)),
                "image_means": _bars(mean),
            }
        )
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")


_NUM_BARS = 24


def _bars(values: Sequence[float]) -> dict[str, Any]:
    """How many images have which mean."""
    low, high = min(values), max(values)
    counts = [0] * (_NUM_BARS if high > low else 1)
    for value in values:
        place = int((value - low) / (high - low) * len(counts)) if high > low else 0
        counts[min(place, len(counts) - 1)] += 1
    return {"low": low, "high": high, "counts": counts}


def _objects(kept: pa.Table) -> dict[str, Any] | None:
    """Masks: objects an image."""
    counts = sorted(kept["num_objects"].drop_null().to_pylist())
    if not counts:
        return None
    return {
        "images": len(counts),
        "objects": sum(counts),
        "min": counts[0],
        "median": counts[len(counts) // 2],
        "max": counts[-1],
        "without": counts.count(0),
    }


def chosen(index: pa.Table) -> list[ImageRow]:
    """Images for the page: class by class in turn, each class from its whole length, in the order of the set."""
    kept = index.filter(pc.equal(index["state"], states.KEPT))
    by_class: dict[str, list[int]] = defaultdict(list)
    for place, label in enumerate(kept["label"].to_pylist()):
        by_class[label or ""].append(place)
    share = max(1, MAX_PICTURES // max(len(by_class), 1))
    taken: list[int] = []
    for label in sorted(by_class)[:MAX_PICTURES]:
        places = by_class[label]
        number = min(share, len(places))
        taken += [places[i * len(places) // number] for i in range(number)]
    return [ImageRow(**row) for row in kept.take(pa.array(taken, pa.int64())).to_pylist()]


def render(
    card: Mapping[str, Any],
    pictures: Sequence[Mapping[str, Any]],
    timings: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> str:
    """The page as text: one file, no script, nothing loaded from elsewhere.

    Args:
        card: of `card_of`, with digests and settings.
        pictures: each with `address`, `id`, `caption` and `label`.
        timings: how long it took.
        provenance: what made it.
    """
    classes = sorted(card["classes"].items(), key=lambda one: (-one[1], one[0]))
    return render_page(
        _TEMPLATE,
        Path(__file__).parent,
        card=card,
        pictures=pictures,
        classes=classes[:MAX_SHOWN],
        most_of_a_class=max((num for _, num in classes), default=1) or 1,
        num_more_classes=max(0, card["num_classes"] - MAX_SHOWN),
        sentences=states.INGEST_REASONS,
        timings=timings,
        provenance={name: value for name, value in provenance.items() if value is not None},
    )

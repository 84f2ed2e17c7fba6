"""Small images of every kind, made by code, and the command that takes them in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from PIL import Image


def pixels(seed: int, shape: tuple[int, ...] = (24, 20), dtype: str = "uint8") -> np.ndarray:
    """Random pixels that use the whole range of their type, or the unit interval."""
    chance = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return chance.random(shape).astype(dtype)
    info = np.iinfo(dtype)
    return chance.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def labels(seed: int, shape: tuple[int, int] = (24, 20), number: int = 3) -> np.ndarray:
    """A mask of a few boxes."""
    mask = np.zeros(shape, np.uint16)
    chance = np.random.default_rng(seed)
    for label in range(1, number + 1):
        row, column = chance.integers(0, shape[0] - 4), chance.integers(0, shape[1] - 4)
        mask[row : row + 4, column : column + 4] = label
    return mask


def save(path: Path, array: np.ndarray, **how: Any) -> Path:
    """Write by the suffix: PNG and JPEG through Pillow, TIFF through tifffile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, array, **{"photometric": "rgb" if array.shape[-1:] == (3,) else "minisblack", **how})
    else:
        Image.fromarray(array).save(path, **how)
    return path


def ome_zarr(
    folder: Path,
    array: np.ndarray,
    axes: str,
    *,
    version: str = "0.5",
    unit: str | None = "micrometer",
    scale: float = 0.5,
    channels: list[str] | None = None,
    sharded: bool = False,
    chunk: int = 8,
    leave_out_empty: bool = False,
) -> Path:
    """An image group of OME-Zarr with one level, `0`, written by zarr."""
    names = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
    told = [
        {"name": name, "type": names[name], **({"unit": unit} if unit and names[name] == "space" else {})}
        for name in axes
    ]
    factors = [scale if names[name] == "space" else 1.0 for name in axes]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": factors}]}
    attributes: dict[str, Any] = {"multiscales": [{"name": "toy", "axes": told, "datasets": [level]}]}
    if channels:
        attributes["omero"] = {"channels": [{"label": name} for name in channels]}
    is_v3 = version == "0.5"
    if not is_v3:
        attributes["multiscales"][0]["version"] = version
    write_group(folder, attributes, is_v3=is_v3)
    chunks = tuple(min(chunk, size) if name in "yx" else 1 for name, size in zip(axes, array.shape, strict=True))
    more: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if not is_v3 else {}
    if sharded:
        more["shards"] = tuple(part * -(-size // part) for part, size in zip(chunks, array.shape, strict=True))
    whole = zarr.create_array(
        folder / "0",
        shape=array.shape,
        chunks=chunks,
        dtype=array.dtype,
        zarr_format=3 if is_v3 else 2,
        config={"write_empty_chunks": not leave_out_empty},
        **more,
    )
    whole[...] = array
    return folder


def write_group(folder: Path, attributes: dict[str, Any], *, is_v3: bool = True) -> None:
    """A group with OME attributes."""
    folder.mkdir(parents=True, exist_ok=True)
    if is_v3:
        ome = {"ome": {"version": "0.5", **attributes}} if attributes else {}
        content = {"zarr_format": 3, "node_type": "group", "attributes": ome}
        (folder / "zarr.json").write_text(json.dumps(content))
        return
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text(json.dumps(attributes))


def ome_plate(folder: Path, wells: dict[str, list[np.ndarray]], *, version: str = "0.5") -> Path:
    """A plate with fields (C, Y, X) in each well, such as {"A/1": [...]}."""
    is_v3 = version == "0.5"
    rows, columns = ({path.split("/")[i] for path in wells} for i in (0, 1))
    plate = {
        "name": "toy plate",
        "rows": [{"name": name} for name in sorted(rows)],
        "columns": [{"name": name} for name in sorted(columns)],
        "wells": [{"path": path, "rowIndex": 0, "columnIndex": 0} for path in wells],
        **({} if is_v3 else {"version": version}),
    }
    write_group(folder, {"plate": plate}, is_v3=is_v3)
    for path, fields in wells.items():
        write_group(folder / path.split("/")[0], {}, is_v3=is_v3)
        images = [{"path": str(number)} for number in range(len(fields))]
        well = {"images": images, **({} if is_v3 else {"version": version})}
        write_group(folder / path, {"well": well}, is_v3=is_v3)
        for number, field in enumerate(fields):
            ome_zarr(folder / path / str(number), field, "cyx", version=version)
    return folder


GUID = "083F814E-5168-424F-8A96-B5540E18EC20"


def imagexpress(folder: Path, *, channels: int = 2, steps: int = 0, times: int = 1, thumbs: bool = True) -> Path:
    """A plate of wells A01 and B02 with two sites each, as the microscope names its files."""
    seed = 0
    for time in range(1, times + 1):
        for step in range(steps + 1):
            below = folder / (f"TimePoint_{time}" if times > 1 else ".") / (f"ZStep_{step}" if step else ".")
            for well in ("A01", "B02"):
                for site in (1, 2):
                    for channel in range(1, channels + 1):
                        seed += 1
                        name = f"toy_{well}_s{site}" + (f"_w{channel}" if channels > 1 else "")
                        save(below / f"{name}{GUID}.tif", pixels(seed, dtype="uint16"))
                        if thumbs:
                            save(below / f"{name}_thumb{GUID}.tif", pixels(seed, (6, 5), "uint16"))
    return folder

"""What a model folder says about itself, read and checked without torch.

    replisome.json            architecture, params, encoder, heads, context, licence, training data, metrics,
                              and size and sha256 of every member file
    member-00.safetensors     tensors of the first network; member-01 and on for an ensemble
    README.md                 the card, for people

Nothing here is ever unpickled: safetensors holds plain tensors behind a JSON header.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.models._safetensors import file_sha256, no_duplicates, read_header

FORMAT = 1
SPEC_NAME = "replisome.json"
CARD_NAME = "README.md"
ZOO = Path(__file__).parent / "zoo"
SYMMETRIES = ("symmetric", "paired", "stranded")
LEVELS = ("position", "sequence", "image", "pixel")
MAX_SPEC_BYTES = 4 << 20
MAX_MEMBERS = 100
_PICKLED = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib", ".h5", ".hdf5", ".keras", ".npy", ".npz")
_MEMBER = re.compile(r"member-\d{2}\.safetensors")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_FETCH = "fetch the model again"
_SPLICEAI = tuple(f"{place}spliceai1.h5" for place in ("", "models/", "spliceai/models/"))
_IMPORT_FIX = "convert it once: read its tensors with an importer and save them with save_model_folder"


@dataclass(frozen=True)
class HeadInfo:
    """One output of a model.

    Attributes:
        name: the head's name.
        channels: names of its channels, in order.
        activation: what was applied last: "softmax", "sigmoid", "softplus" or "identity".
        symmetry: what reading the other strand does. "symmetric": values keep their channel; "paired": the channels in
            `pairs` swap; "stranded": the head reads one strand only and averaging over strands is refused.
        pairs: channel indices that swap, for "paired"; channels in no pair stay.
        meaning: what a value says, with its unit.
        level: "position": a value for every output position, (B, C, L - context_bp); "sequence": one for the whole
            sequence, (B, C); "image": one for the whole image, (B, C); "pixel": one for every pixel, (B, C, Y, X).
    """

    name: str
    channels: tuple[str, ...]
    activation: str
    symmetry: str
    pairs: tuple[tuple[int, int], ...] = ()
    meaning: str = ""
    level: str = "position"

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "pairs", tuple((int(one), int(other)) for one, other in self.pairs))
        if not _PLAIN_NAME.fullmatch(self.name):
            raise ValueError(f"a head's name holds letters, digits, '_', '-' and '.', found {self.name!r}")
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise ValueError(f"head {self.name!r} needs channels with distinct names, found {list(self.channels)}")
        if self.symmetry not in SYMMETRIES:
            raise ValueError(f"symmetry must be one of {', '.join(SYMMETRIES)}, found {self.symmetry!r}")
        if self.level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, found {self.level!r}")
        self._check_pairs()

    def _check_pairs(self) -> None:
        members = [channel for pair in self.pairs for channel in pair]
        if (self.symmetry == "paired") != bool(members):
            raise ValueError(f"head {self.name!r}: pairs are given exactly where symmetry is 'paired'")
        if len(set(members)) != len(members) or not all(0 <= channel < len(self.channels) for channel in members):
            raise ValueError(f"head {self.name!r}: pairs {self.pairs} must name each channel index at most once")


@dataclass(frozen=True)
class ModelInfo:
    """An opened model folder; picklable, and free of torch.

    Attributes:
        context_bp: bases used up, both flanks together: a window of L gives L - context_bp outputs, and output i sits
            at input i + context_bp // 2.
        members: number of networks, averaged after the activation.
        score_tag: "SpliceAI" where the folder says that it holds SpliceAI's own weights, else ""; what it says is no
            proof, which `network_digest` is.
        digest: sha256 over the canonical text of replisome.json and the sha256 of every member file.
        path: the folder.
        files: (name, bytes, sha256) of every member file, in order.
    """

    name: str
    version: str
    architecture: str
    params: dict[str, Any]
    encoder: dict[str, Any]
    heads: dict[str, HeadInfo]
    context_bp: int
    members: int
    licence: str
    score_tag: str = ""
    training_data: list[Any] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    path: str = ""
    files: tuple[tuple[str, int, str], ...] = ()


# Key of replisome.json -> its type; all are required.
_KEYS: dict[str, type] = {
    "format": int,
    "name": str,
    "version": str,
    "architecture": str,
    "params": dict,
    "encoder": dict,
    "heads": list,
    "context_bp": int,
    "members": list,
    "licence": str,
    "score_tag": str,
    "training_data": list,
    "metrics": dict,
    "extra": dict,
}


def open_model(name_or_path: str | Path) -> ModelInfo:
    """Open a model that ships, by name, or a model folder, by path ("./splice-mini" is always a path).

    Checks replisome.json, the safetensors header of each member and its sha256. Whether the tensors are those of the
    architecture is checked by ``engine.models._folder.check_members`` and ``load_members``, which need torch.

    Raises:
        InputError: no such model; a Hugging Face, pickle or HDF5 file; a spec that does not parse; a member missing,
            left over, malformed or with another digest than recorded.
    """
    try:
        return _open(_find(str(name_or_path)))
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", where=str(name_or_path), fix="check its rights"
        ) from error


def _open(folder: Path) -> ModelInfo:
    spec = _read_spec(folder / SPEC_NAME)
    where = str(folder / SPEC_NAME)
    _check_keys(spec, where)
    files = _check_files(folder, spec["members"], where)
    return ModelInfo(
        name=spec["name"],
        version=spec["version"],
        architecture=spec["architecture"],
        params=spec["params"],
        encoder=_encoder(spec["encoder"], where),
        heads=_heads(spec["heads"], where),
        context_bp=spec["context_bp"],
        members=len(files),
        licence=spec["licence"],
        score_tag=spec["score_tag"],
        training_data=spec["training_data"],
        metrics=spec["metrics"],
        extra=spec["extra"],
        digest=_digest(spec, files),
        path=str(folder),
        files=files,
    )


def zoo_names() -> list[str]:
    """Names of the models that ship, sorted."""
    return sorted(path.parent.name for path in ZOO.glob(f"*/{SPEC_NAME}"))


def spec_of(info: ModelInfo) -> dict[str, Any]:
    """What replisome.json holds for this model."""
    return {
        "format": FORMAT,
        "name": info.name,
        "version": info.version,
        "architecture": info.architecture,
        "params": info.params,
        "encoder": info.encoder,
        "heads": [_head_text(head) for head in info.heads.values()],
        "context_bp": info.context_bp,
        "members": [{"file": name, "bytes": size, "sha256": sha256} for name, size, sha256 in info.files],
        "licence": info.licence,
        "score_tag": info.score_tag,
        "training_data": info.training_data,
        "metrics": info.metrics,
        "extra": info.extra,
    }


def _head_text(head: HeadInfo) -> dict[str, Any]:
    """Without the level where it is the usual one: folders written before there were two keep their digest."""
    text = asdict(head)
    if head.level == "position":
        del text["level"]
    return text


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def network_digest(info: ModelInfo) -> str:
    """sha256 over what decides a model's numbers: architecture, params, encoder and the tensor files in their order.

    Name, card, licence and every other word of the folder leave it as it is.
    """
    made = {"architecture": info.architecture, "params": info.params, "encoder": info.encoder}
    lines = [canonical_json(made), *(sha256 for _, _, sha256 in info.files)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest(spec: Mapping[str, Any], files: tuple[tuple[str, int, str], ...]) -> str:
    lines = [canonical_json(spec), *(f"{name} {sha256}" for name, _, sha256 in files)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _find(text: str) -> Path:
    """The folder that a name or path means."""
    if _PLAIN_NAME.fullmatch(text) and text in zoo_names():
        return ZOO / text
    path = Path(text)
    if path.suffix.lower() in _PICKLED and not path.is_dir():
        raise InputError(
            f"{path.suffix} files can run code or hide layers and are never opened", where=text, fix=_IMPORT_FIX
        )
    if path.is_file():
        raise InputError("a model is a folder, and this is a file", where=text, fix="give the folder that holds it")
    if not path.is_dir():
        near = difflib.get_close_matches(text, zoo_names(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(zoo_names()) or "none"
        raise InputError("no model of this name and no such folder", where=text, fix=f"{hint}models that ship: {known}")
    _refuse_foreign(path)
    return path


def _refuse_foreign(folder: Path) -> None:
    """Say plainly what a folder is when it is not ours."""
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _PICKLED)
    if (folder / SPEC_NAME).is_file():
        if pickled:
            what = f"{pickled[0]} can run code when read and has no place in a model folder"
            raise InputError(what, where=str(folder), fix="remove it, or import its tensors into a folder of their own")
        return
    if (folder / "config.json").is_file():
        raise InputError(
            f"this is a Hugging Face folder (config.json, no {SPEC_NAME}), which this job does not take",
            where=str(folder),
            fix=_IMPORT_FIX,
        )
    inside = next((name for name in _SPLICEAI if (folder / name).is_file()), None)
    if inside is not None:
        what = f"this is an install of SpliceAI (it holds {inside}), whose files are imported once"
        raise InputError(what, where=str(folder), fix=f"replisome models import spliceai --from {folder} -o MODEL")
    if pickled:
        raise InputError(f"the folder holds {pickled[0]} and no {SPEC_NAME}", where=str(folder), fix=_IMPORT_FIX)
    raise InputError(f"the folder holds no {SPEC_NAME}", where=str(folder), fix="give a model folder")


def _read_spec(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{SPEC_NAME} is missing", where=str(path.parent), fix="give a model folder")
    if path.stat().st_size > MAX_SPEC_BYTES:
        raise InputError(f"larger than {MAX_SPEC_BYTES} bytes", where=str(path), fix="give a model folder")
    try:
        spec = json.loads(
            path.read_text(encoding="utf-8"), object_pairs_hook=no_duplicates, parse_constant=_no_constants
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"does not parse as JSON: {reason}", where=str(path), fix=_FETCH) from error
    if not isinstance(spec, dict):
        raise InputError("holds no JSON object", where=str(path), fix=_FETCH)
    return spec


def _no_constants(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _check_keys(spec: Mapping[str, Any], where: str) -> None:
    if spec.get("format") != FORMAT:
        raise InputError(
            f"model folder format {spec.get('format')!r}, this version reads {FORMAT}",
            where=where,
            fix="update replisome",
        )
    for key in spec:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"unknown key {key!r}", where=where, fix=f"{hint}known: {', '.join(_KEYS)}")
    for key, kind in _KEYS.items():
        if key not in spec:
            raise InputError(f"key {key!r} is missing", where=where, fix=_FETCH)
        if type(spec[key]) is not kind:
            what = f"{key!r} must be {kind.__name__}, found {type(spec[key]).__name__}"
            raise InputError(what, where=where, fix=_FETCH)
    if spec["context_bp"] < 0 or spec["context_bp"] % 2:
        raise InputError(
            f"context_bp must be even and 0 or more, found {spec['context_bp']}", where=where, fix="correct it"
        )


def _encoder(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    if set(value) != {"name", "params"} or not isinstance(value["name"], str) or not isinstance(value["params"], dict):
        raise InputError("'encoder' must hold 'name' and 'params'", where=where, fix=_FETCH)
    return dict(value)


def _heads(values: list[Any], where: str) -> dict[str, HeadInfo]:
    try:
        heads = [HeadInfo(**value) for value in values]
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"'heads' do not read: {error}", where=where, fix=_FETCH) from error
    if not heads or len({head.name for head in heads}) != len(heads):
        raise InputError("'heads' must hold at least one head, each name once", where=where, fix=_FETCH)
    return {head.name: head for head in heads}


def _check_files(folder: Path, members: list[Any], where: str) -> tuple[tuple[str, int, str], ...]:
    """Every member is there, is the file it was, and is safetensors; none is left over."""
    files = tuple(_member(value, number, where) for number, value in enumerate(members))
    if not 1 <= len(files) <= MAX_MEMBERS:
        raise InputError(f"{len(files)} members, allowed are 1 to {MAX_MEMBERS}", where=where, fix=_FETCH)
    left_over = sorted({path.name for path in folder.glob("*.safetensors")} - {name for name, _, _ in files})
    if left_over:
        what = f"{left_over[0]} is not listed in {SPEC_NAME}"
        raise InputError(what, where=str(folder), fix="remove it or fetch the model again")
    for name, size, sha256 in files:
        _check_file(folder / name, size, sha256)
    return files


def _member(value: Any, number: int, where: str) -> tuple[str, int, str]:
    if not isinstance(value, dict) or set(value) != {"file", "bytes", "sha256"}:
        raise InputError("each of 'members' must hold file, bytes and sha256", where=where, fix=_FETCH)
    name, size, sha256 = value["file"], value["bytes"], value["sha256"]
    # The name is fixed by the number, which leaves no way out of the folder.
    if not isinstance(name, str) or not _MEMBER.fullmatch(name) or name != member_name(number):
        what = f"member {number} must be named {member_name(number)}, found {name!r}"
        raise InputError(what, where=where, fix=_FETCH)
    if type(size) is not int or not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise InputError(f"{name}: bytes or sha256 do not read", where=where, fix=_FETCH)
    return name, size, sha256


def member_name(number: int) -> str:
    """File name of a member, counted from 0."""
    return f"member-{number:02d}.safetensors"


def _check_file(path: Path, size: int, sha256: str) -> None:
    if not path.is_file():
        raise InputError("the member file is missing", where=str(path), fix=_FETCH)
    found = path.stat().st_size
    if found != size:
        raise InputError(f"{found} bytes, {SPEC_NAME} records {size}", where=str(path), fix=_FETCH)
    read_header(path)
    digest = file_sha256(path)
    if digest != sha256:
        what = f"sha256 {digest[:12]}..., {SPEC_NAME} records {sha256[:12]}..."
        raise InputError(what, where=str(path), fix="the file was changed or damaged: fetch the model again")

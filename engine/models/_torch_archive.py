"""Tensors of a file that ``torch.save`` wrote, read without unpickling it.

The file is a zip archive: ``data.pkl`` says what there is, ``data/<key>`` holds the bytes of each storage. A pickle is
a program that can call anything; here its steps are only looked at. A few of them build plain values, three known calls
describe dictionaries and tensors, and everything else is refused by name: nothing that the file names is ever imported
or called.
Every size is compared with the bytes that are there before an array is made.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import InputError

FIX = "give a state dict as torch.save writes it since torch 1.6"
MAX_PICKLE_BYTES = 4 << 20
MAX_ENTRIES = 10_000
MAX_DIMENSIONS = 8
_STORAGES = {
    "torch FloatStorage": "f4",
    "torch DoubleStorage": "f8",
    "torch HalfStorage": "f2",
    "torch LongStorage": "i8",
}
_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_BROKEN_ZIP = (zipfile.BadZipFile, OSError, ValueError, EOFError, RuntimeError, NotImplementedError, OverflowError)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SILENT = {"PROTO", "FRAME"}
_MARK = object()


class _Refused(Exception):
    """Why a file is not read, as a sentence without its end."""


@dataclass(frozen=True, slots=True)
class _Name:
    """Something the pickle would import; here it stays a name."""

    text: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """A run of numbers in the archive."""

    dtype: str
    key: str
    length: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A part of a storage, in plain order."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]


def read_tensors(content: bytes, *, where: str) -> dict[str, np.ndarray]:
    """Name to array, in the file's order, of a file that holds a state dict and nothing else.

    Args:
        content: the whole file.
        where: its path, for errors.

    Raises:
        InputError: no such file, damaged, or asking for anything but tensors; says what.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries, prefix = _entries(archive, len(content))
            described = _described(_evaluate(archive.read(entries[prefix + "data.pkl"])))
            storages = _Storages(archive, entries, prefix)
            return {name: storages.array(name, tensor) for name, tensor in described.items()}
    except _Refused as error:
        raise InputError(str(error), where=where, fix=FIX) from error
    except _BROKEN_ZIP as error:
        reason = "".join(filter(str.isprintable, " ".join(str(error).split())))[:200]
        raise InputError(f"does not read as a torch file: {reason}", where=where, fix=FIX) from error


def _entries(archive: zipfile.ZipFile, size: int) -> tuple[dict[str, zipfile.ZipInfo], str]:
    """The archive's files by name, and the folder they lie in; stored as they are, each name once."""
    listed = archive.infolist()
    if len(listed) > MAX_ENTRIES:
        raise _Refused(f"{len(listed)} files in the archive, allowed are {MAX_ENTRIES}")
    entries = {entry.filename: entry for entry in listed}
    if len(entries) != len(listed):
        raise _Refused("a name stands twice in the archive")
    for entry in listed:
        # torch never compresses: what is compressed could unfold to any size.
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
            raise _Refused(f"{entry.filename[:100]!r} is compressed or encrypted")
    if sum(entry.file_size for entry in listed) > size:
        raise _Refused("the archive's files overlap")
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise _Refused(f"the archive holds {len(pickles)} files data.pkl, expected one")
    if entries[pickles[0]].file_size > MAX_PICKLE_BYTES:
        raise _Refused(f"data.pkl has more than {MAX_PICKLE_BYTES} bytes")
    return entries, pickles[0].removesuffix("data.pkl")


def _described(value: Any) -> dict[str, _Tensor]:
    if not isinstance(value, dict) or not value:
        raise _Refused("holds no state dict")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise _Refused(f"{str(name)[:100]!r} is no tensor: this is no plain state dict")
    return value


def _evaluate(program: bytes) -> Any:
    """The value a pickle describes, from the few steps that a state dict needs."""
    machine = _Machine()
    try:
        for step in _steps(program):
            machine.do(*step)
            if machine.done:
                return machine.stack.pop()
    except (IndexError, KeyError) as error:
        raise _Refused("data.pkl takes what is not there") from error
    raise _Refused("data.pkl does not end")


def _steps(program: bytes) -> Iterator[tuple[str, Any]]:
    try:
        for code, argument, _ in pickletools.genops(program):
            yield code.name, argument
    except (ValueError, OverflowError) as error:
        raise _Refused("data.pkl is damaged") from error


class _Machine:
    """The stack and memory that a pickle's steps work on."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}
        self.done = False

    def do(self, step: str, argument: Any) -> None:
        """One step.

        Raises:
            _Refused: a step, or a use of one, that no state dict needs.
        """
        if step in _SILENT:
            return
        if step in _LITERALS:
            self.stack.append(argument)
        elif step in _CONSTANTS:
            self.stack.append(_CONSTANTS[step])
        elif step in _EMPTY:
            self.stack.append(_EMPTY[step]())
        elif step in ("BINPUT", "LONG_BINPUT"):
            self.memory[argument] = self.stack[-1]
        elif step in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memory[argument])
        elif step == "MARK":
            self.stack.append(_MARK)
        elif step == "GLOBAL":
            self.stack.append(_Name(argument))
        elif step == "STOP":
            self.done = True
        else:
            self._combine(step)

    def _combine(self, step: str) -> None:
        """The steps that take values off the stack."""
        if step in _TUPLES:
            self.stack.append(tuple(self._take(_TUPLES[step])))
        elif step == "TUPLE":
            self.stack.append(tuple(self._take_to_mark()))
        elif step == "SETITEM":
            self._set(self._take(2))
        elif step == "SETITEMS":
            self._set(self._take_to_mark())
        elif step in ("APPEND", "APPENDS"):
            items = self._take(1) if step == "APPEND" else self._take_to_mark()
            _of_type(self.stack[-1], list).extend(items)
        elif step == "BUILD":
            # The state of an OrderedDict: torch keeps version numbers of its modules there.
            target, _ = self._take(2)
            self.stack.append(_of_type(target, dict))
        elif step == "BINPERSID":
            self.stack.append(_storage(self._take(1)[0]))
        elif step == "REDUCE":
            self.stack.append(_called(*self._take(2)))
        else:
            raise _Refused(f"data.pkl asks for step {step}, which no state dict needs")

    def _take(self, count: int) -> list[Any]:
        if len(self.stack) < count or _MARK in self.stack[-count:]:
            raise IndexError
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _take_to_mark(self) -> list[Any]:
        taken: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            taken.append(value)
        return taken[::-1]

    def _set(self, items: list[Any]) -> None:
        target = _of_type(self.stack[-1], dict)
        if len(items) % 2:
            raise IndexError
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_of_type(key, str)] = value


def _of_type(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise _Refused(f"data.pkl holds {type(value).__name__.lstrip('_')} where a state dict has {kind.__name__}")
    return value


def _called(function: Any, arguments: Any) -> Any:
    """What one of the known calls describes."""
    name, values = _of_type(function, _Name).text, _of_type(arguments, tuple)
    if name == _DICT and not values:
        return {}
    if name == _TENSOR and len(values) in (6, 7):
        return _tensor(*values[:4])
    if name == _PARAMETER and len(values) == 3:
        return _of_type(values[0], _Tensor)
    raise _Refused(f"data.pkl asks to call {name.replace(' ', '.')[:100]!r}, which no state dict needs")


def _storage(value: Any) -> _Storage:
    parts = _of_type(value, tuple)
    if len(parts) != 5 or parts[0] != "storage":
        raise _Refused("data.pkl refers to what is no storage")
    kind = _of_type(parts[1], _Name).text
    if kind not in _STORAGES:
        raise _Refused(f"numbers of type {kind.replace(' ', '.')[:100]!r} are not read")
    return _Storage(_STORAGES[kind], _of_type(parts[2], str), _whole(parts[4]))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
    sizes = tuple(_whole(size) for size in _of_type(shape, tuple))
    steps = tuple(_whole(step) for step in _of_type(strides, tuple))
    if len(sizes) != len(steps) or len(sizes) > MAX_DIMENSIONS:
        raise _Refused(f"a tensor of {len(sizes)} dimensions and {len(steps)} strides")
    plain = 1
    for size, step in zip(sizes[::-1], steps[::-1], strict=True):
        if size != 1 and step != plain:
            raise _Refused(f"a tensor of shape {list(sizes)} is not stored in plain order")
        plain *= size
    made = _Tensor(_of_type(storage, _Storage), _whole(offset), sizes)
    if made.offset + math.prod(sizes) > made.storage.length:
        raise _Refused(f"a tensor of shape {list(sizes)} reaches beyond its storage of {made.storage.length} numbers")
    return made


def _whole(value: Any) -> int:
    number: int = _of_type(value, int)
    if not 0 <= number < 1 << 40:
        raise _Refused("a size in data.pkl is negative or beyond any file")
    return number


class _Storages:
    """The archive's bytes, each storage read once."""

    def __init__(self, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], prefix: str) -> None:
        self._archive = archive
        self._entries = entries
        self._prefix = prefix
        self._read: dict[str, bytes] = {}
        order = self._bytes("byteorder") if prefix + "byteorder" in entries else b"little"
        if order not in (b"little", b"big"):
            raise _Refused(f"byte order {order[:20]!r} is unknown")
        self._sign = "<" if order == b"little" else ">"

    def array(self, name: str, tensor: _Tensor) -> np.ndarray:
        """A tensor's numbers; they belong to the storage and are not to be written to."""
        storage = tensor.storage
        dtype = np.dtype(self._sign + storage.dtype)
        content = self._bytes(f"data/{storage.key}")
        if len(content) != storage.length * dtype.itemsize:
            what = f"storage {storage.key[:100]!r} has {len(content)} bytes, its tensors say {storage.length} numbers"
            raise _Refused(f"{what} of {dtype.itemsize} bytes ({name[:100]!r})")
        values = np.frombuffer(content, dtype)[tensor.offset : tensor.offset + math.prod(tensor.shape)]
        return values.reshape(tensor.shape)

    def _bytes(self, name: str) -> bytes:
        if name not in self._read:
            if self._prefix + name not in self._entries:
                raise _Refused(f"{name[:100]!r} is missing in the archive")
            self._read[name] = self._archive.read(self._entries[self._prefix + name])
        return self._read[name]

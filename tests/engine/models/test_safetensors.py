"""Judge: the safetensors library. Whatever our reader lets through, the library reads the same way."""

import json

import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from engine.errors import InputError
from engine.models import _safetensors
from engine.models._safetensors import read_header

TENSORS = {
    "stem.weight": torch.arange(24.0).reshape(2, 3, 4),
    "half": torch.ones(5, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(7),
}
BYTES = save(TENSORS, metadata={"by": "test"})


def file_of(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_agrees_with_the_library(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(BYTES)
    found = read_header(path)
    assert list(found) == sorted(TENSORS)
    with safetensors.safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            part = file.get_slice(name)
            assert (found[name].dtype, list(found[name].shape)) == (part.get_dtype(), part.get_shape())


HEADER_LENGTH = int.from_bytes(BYTES[:8], "little")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 8 + HEADER_LENGTH - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_read_as_the_library_reads_it(tmp_path, at, byte):
    changed = BYTES[:at] + bytes([byte]) + BYTES[at + 1 :]
    path = tmp_path / "a.safetensors"
    path.write_bytes(changed)
    try:
        found = read_header(path)
    except InputError:
        return
    library = load(changed)
    assert {name: header.shape for name, header in found.items()} == {
        name: tuple(value.shape) for name, value in library.items()
    }


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=40), announced=st.one_of(st.none(), st.integers(0, 2**64 - 1)))
def test_noise_is_one_sentence(tmp_path, data, announced):
    path = tmp_path / "a.safetensors"
    path.write_bytes(data if announced is None else announced.to_bytes(8, "little") + data)
    with pytest.raises(InputError, match=r"a\.safetensors: no safetensors file.*fetch the model again"):
        read_header(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "its header length does not fit"),
        (b"\x01", "its header length does not fit"),
        ((2**63).to_bytes(8, "little") + b"{}", "its header length does not fit"),
        (file_of(b"{" * 100_000), "its header is no plain JSON"),
        (file_of(b'{"a":' * 50_000), "its header is no plain JSON"),
        (file_of(b"\xff\xfe{\x00}\x00"), "its header is no plain JSON"),
        (file_of([]), "its header is no JSON object"),
        (file_of(b'{"a":1,"a":2}'), "its header is no plain JSON"),
        (file_of({"__metadata__": {"a": 1}}), "__metadata__ must hold texts"),
        (file_of({"a": 3}), "tensor 'a': header does not read"),
        (file_of({"a": tensor([1], 0, 4, dtype="F31")}, b"1234"), "tensor 'a': header does not read"),
        (file_of({"a": tensor([1], 0, 4, dtype=[])}, b"1234"), "tensor 'a': header does not read"),
        (file_of({"a": tensor([2], 0, 4)}, b"1234"), "do not fit its byte range"),
        (file_of({"a": tensor([-1], 4, 0)}, b"1234"), "do not fit its byte range"),
        (file_of({"a": tensor([1.0], 0, 4)}, b"1234"), "do not fit its byte range"),
        (file_of({"a": tensor([1] * 100, 0, 4)}, b"1234"), "do not fit its byte range"),
        (file_of({"a": tensor([10**30], 0, 4 * 10**30)}, b"1234"), "do not fit its byte range"),
        (file_of({"a": tensor([1], 0, 4) | {"x": 1}}, b"1234"), "do not fit its byte range"),
        (file_of({"a": tensor([1], 0, 4), "b": tensor([1], 0, 4)}, b"1234"), "gap or overlap at byte 4"),
        (file_of({"a": tensor([1], 4, 8)}, b"12345678"), "gap or overlap at byte 0"),
        (file_of({"a": tensor([1], 0, 4)}, b"12345678"), "tensor data is 8 bytes, its header describes 4"),
        (file_of({"a": tensor([2], 0, 8)}, b"1234"), "tensor data is 4 bytes, its header describes 8"),
        (file_of({f"t{i}": tensor([0], 0, 0) for i in range(6)}), "6 tensors, more than the limit of 5"),
    ],
)
def test_hostile_headers(tmp_path, monkeypatch, content, sentence):
    monkeypatch.setattr(_safetensors, "MAX_TENSORS", 5)
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_header(path)


def test_limits_on_size_stop_before_reading(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(BYTES)
    monkeypatch.setattr(_safetensors, "MAX_FILE_BYTES", len(BYTES) - 1)
    with pytest.raises(InputError, match=f"{len(BYTES)} bytes, more than the limit of {len(BYTES) - 1}"):
        read_header(path)
    monkeypatch.setattr(_safetensors, "MAX_FILE_BYTES", len(BYTES))
    monkeypatch.setattr(_safetensors, "MAX_HEADER_BYTES", HEADER_LENGTH - 1)
    with pytest.raises(InputError, match="its header length does not fit"):
        read_header(path)

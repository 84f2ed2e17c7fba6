"""Checksums against the values their standards print."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from engine.storage.checksums import checksums_of_file, crc32c, crc32c_of_file, sha256_of_file


def test_crc32c_of_rfc_3720_vectors():
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283


@given(st.binary(max_size=300), st.integers(0, 300))
def test_crc32c_continues(data, cut):
    assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)


def test_files_as_their_bytes(tmp_path):
    path = tmp_path / "file"
    data = bytes(range(256)) * 9000
    path.write_bytes(data)
    assert crc32c_of_file(path) == crc32c(data)
    assert sha256_of_file(path) == hashlib.sha256(data).hexdigest()
    assert checksums_of_file(path) == (len(data), hashlib.sha256(data).hexdigest(), crc32c(data))


def test_all_checksums_take_one_reading(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(bytes(3 << 20))
    opened = []
    plain = type(path).open
    monkeypatch.setattr(type(path), "open", lambda self, *args: opened.append(self) or plain(self, *args))
    checksums_of_file(path)
    assert opened == [path]

"""Sequence digests against the values that the GA4GH specifications print."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.genome.refget import refget_digest


def test_published_digests() -> None:
    # refget 2.0.0 prints the first; VRS prints the digest of the empty string under "truncated digest".
    assert refget_digest([b"ACGT"]) == "SQ.aKF498dAxcJAqme6QYQ7EZ07-fiw8Kw2"
    assert refget_digest([]) == "SQ.z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXc"


def test_case_does_not_count_but_letters_do() -> None:
    assert refget_digest([b"acgt"]) == refget_digest([b"ACGT"])
    assert refget_digest([b"ACGR"]) != refget_digest([b"ACGN"])


@given(st.lists(st.binary(max_size=20)))
def test_chunks_do_not_count(chunks: list[bytes]) -> None:
    assert refget_digest(chunks) == refget_digest([b"".join(chunks)])

"""The GT of all samples of a batch of VCF lines at once.

Legend: m whole lines, S samples, P the most copies of any call of the batch; x_mSP and the like.

A plain diploid call (one digit or '.', a separator, one digit or '.') is read by three table look-ups; what is not
plain goes through a walk over the characters, one step for all such calls together.

Source: the Variant Call Format specification 4.3 (samtools/hts-specs), section 1.6.2; codes of VCF Zarr 0.4: -1 for a
missing allele, -2 where a call has fewer copies than the array holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.io._vcf_lines import Bytes, Ints, Lines, Mask, Refused, shown

MISSING, NO_COPY = -1, -2
FORMAT = 8
MAX_COPIES = 64
_BAD = -100
_MAX_TEXT = 256
_MAX_ALLELE = 32_000

Alleles = npt.NDArray[np.int16]


def _table(default: int, entries: dict[str, int]) -> npt.NDArray[np.int8]:
    table = np.full(256, default, np.int8)
    for letters, value in entries.items():
        for letter in letters:
            table[ord(letter)] = value
    return table


_ALLELE = _table(_BAD, {".": MISSING, **{str(digit): digit for digit in range(10)}})
_SEPARATOR = _table(0, {"/": 1, "|": 2})
_END = _table(0, {":\t\n": 1})


@dataclass(frozen=True)
class Genotypes:
    """Calls of a batch.

    Attributes:
        alleles: int16 (m, S, P): allele indexes, -1 missing, -2 beyond the call's copies.
        phased: bool (m, S): whether every separator of a call of two or more copies is '|'.
        present: bool (m,): whether the record has GT at all; where not, its alleles are all -1.
    """

    alleles: Alleles
    phased: Mask
    present: Mask


def read_genotypes(lines: Lines, num_alleles: Ints, refused: Refused) -> Genotypes:
    """GT of all samples; rows whose GT cannot be read, or names an allele they do not have, go to `refused`.

    Args:
        lines: the batch.
        num_alleles: int64 (m,): alleles of each record, REF included.
        refused: receives rows with a fault.
    """
    present = _has_gt(lines, refused)
    begins = lines.edges[:, FORMAT + 1 : -1] + 1
    first, separator = _ALLELE[lines.data[begins]], _SEPARATOR[lines.data[begins + 1]]
    second, ended = _ALLELE[lines.data[begins + 2]], _END[lines.data[begins + 3]]
    plain = (first > _BAD) & (second > _BAD) & (separator > 0) & (ended > 0)
    alleles = np.stack((first, second), axis=2).astype(np.int16)
    phased = separator == 2
    odd = np.flatnonzero(~(plain | ~present[:, None]))
    if len(odd):
        alleles = _read_odd(lines.data, begins, odd, alleles=alleles, phased=phased, refused=refused)
    if not present.all():
        alleles[~present], phased[~present] = MISSING, False
    _check_range(alleles, num_alleles, refused)
    return Genotypes(alleles, phased, present)


def _has_gt(lines: Lines, refused: Refused) -> Mask:
    """bool (m,): FORMAT begins with GT. A GT further on refuses its row."""
    begins, ends = lines.spans(FORMAT)
    data = lines.data
    opens = (data[begins] == ord("G")) & (data[begins + 1] == ord("T"))
    present: Mask = opens & ((data[begins + 2] == ord(":")) | (ends == begins + 2))
    for row in np.flatnonzero(~present).tolist():
        keys = lines.raw[begins[row] : ends[row]]
        if b"GT" in keys.split(b":"):
            refused.add(row, "bad_genotype", f"FORMAT {shown(keys)} has GT, but not first")
    return present


def _read_odd(data: Bytes, begins: Ints, odd: Ints, *, alleles: Alleles, phased: Mask, refused: Refused) -> Alleles:
    """Fill in the calls at flat indexes `odd`; return the alleles, with more copies where a call needs them."""
    num_samples = begins.shape[1]
    text = _call_texts(data, begins.ravel()[odd])
    calls, joined, bad = _parse_calls(text)
    for call in np.flatnonzero(bad).tolist():
        row, sample = divmod(int(odd[call]), num_samples)
        refused.add(row, "bad_genotype", f"GT {shown(text[call].tobytes().rstrip(bytes(1)))} of sample {sample + 1}")
    copies = max(alleles.shape[2], calls.shape[1])
    if copies > alleles.shape[2]:
        wider = np.full((*alleles.shape[:2], copies), NO_COPY, np.int16)
        wider[:, :, : alleles.shape[2]] = alleles
        alleles = wider
    flat = alleles.reshape(-1, copies)
    flat[odd, : calls.shape[1]] = calls
    flat[odd, calls.shape[1] :] = NO_COPY
    phased.reshape(-1)[odd] = joined
    return alleles


def _call_texts(data: Bytes, begins: Ints) -> Bytes:
    """uint8 (calls, W): the GT texts, zeros behind them; the last column is zero unless a text is too long to read."""
    columns: list[Bytes] = []
    going = np.ones(len(begins), np.bool_)
    last = len(data) - 1
    for step in range(_MAX_TEXT):
        letters = data[np.minimum(begins + step, last)]
        going &= _END[letters] == 0
        columns.append(np.where(going, letters, 0).astype(np.uint8))
        if not going.any():
            break
    return np.stack(columns, axis=1)


def _parse_calls(text: Bytes) -> tuple[Alleles, Mask, Mask]:
    """Alleles (calls, P) with -2 behind each call's own, whether it is phased, and whether it cannot be read."""
    kinds = _SEPARATOR[text]
    used = text > 0
    bad = (used[:, -1]) | ~used[:, 0] | (used & (kinds == 0) & (_ALLELE[text] == _BAD)).any(axis=1)
    copy_of = np.cumsum(kinds > 0, axis=1)
    num_copies = copy_of[:, -1] + 1
    bad |= num_copies > MAX_COPIES
    num_copies = np.minimum(num_copies, MAX_COPIES)
    shape = (len(text), int(num_copies.max(initial=1)))
    values, digits, dots = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for step in range(text.shape[1]):
        rows = np.flatnonzero(used[:, step] & (kinds[:, step] == 0) & ~bad)
        at = (rows, copy_of[rows, step])
        letter = _ALLELE[text[rows, step]]
        dots[at] += letter == MISSING
        digits[at] += letter >= 0
        values[at] = np.minimum(values[at] * 10 + np.maximum(letter, 0), _MAX_ALLELE)
    own = np.arange(shape[1]) < num_copies[:, None]
    whole = ((digits > 0) & (dots == 0)) | ((digits == 0) & (dots == 1))
    bad |= (own & ~whole).any(axis=1)
    alleles = np.where(own, np.where(dots > 0, MISSING, values), NO_COPY).astype(np.int16)
    phased = (num_copies > 1) & ~(kinds == 1).any(axis=1)
    return alleles, phased, bad


def _check_range(alleles: Alleles, num_alleles: Ints, refused: Refused) -> None:
    highest = alleles.reshape(len(alleles), -1).max(axis=1, initial=MISSING)
    refused.mark(
        highest >= num_alleles,
        "genotype_out_of_range",
        lambda row: (
            f"GT names allele {highest[row]} where the record has {num_alleles[row]} (0 to {num_alleles[row] - 1})"
        ),
    )

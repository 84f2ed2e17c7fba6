"""Motif files: the same motifs in three formats, and files that do not hold together."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from engine.errors import InputError
from engine.io.motif_files import read_motifs

JASPAR = """>MA0001.1\tAGL3
A  [ 0  3 79 ]
C  [94 75  4 ]
G  [ 1  0  3 ]
T  [ 2 19 11 ]

>MA0002.1 RUNX1
10 12
2 2
3 1
11 11
"""
TRANSFAC = """AC MA0001.1
XX
ID AGL3
XX
DE MA0001.1 AGL3 ; From JASPAR
PO\tA\tC\tG\tT
01\t0\t94\t1\t2
02\t3\t75\t0\t19
03\t79.0\t4\t3\t11
XX
CC tax_group:plants
//
AC MA0002.1
ID RUNX1
P0      A      C      G      T
01     10      2      3     11      W
02     12      2      1     11      W
XX
//
"""
MEME = """MEME version 4

ALPHABET= ACGT

strands: + -

Background letter frequencies
A 0.25 C 0.25 G 0.25 T 0.25

MOTIF MA0001.1 AGL3
letter-probability matrix: alength= 4 w= 3 nsites= 97 E= 0
 0.000000  0.969072  0.010309  0.020619
 0.030928  0.773196  0.000000  0.195876
 0.814433  0.041237  0.030928  0.113402

MOTIF MA0002.1 RUNX1
letter-probability matrix: alength= 4 w= 2 nsites= 26
0.384615 0.076923 0.115385 0.423077
0.461538 0.076923 0.038462 0.423077
URL https://jaspar.elixir.no
"""


@pytest.mark.parametrize("text", [JASPAR, TRANSFAC, MEME], ids=["jaspar", "transfac", "meme"])
@pytest.mark.parametrize("packed", [False, True])
def test_three_formats_one_motif(tmp_path, text, packed):
    path = tmp_path / "motifs"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    one, other = read_motifs(path)
    assert (one.id, one.name, one.width, one.consensus) == ("MA0001.1", "AGL3", 3, "CCA")
    np.testing.assert_allclose(one.counts, [[0, 94, 1, 2], [3, 75, 0, 19], [79, 4, 3, 11]], atol=1e-4)
    assert (other.id, other.name, other.consensus) == ("MA0002.1", "RUNX1", "TA")
    np.testing.assert_allclose(other.counts, [[10, 2, 3, 11], [12, 2, 1, 11]], atol=1e-4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello\n", "none of JASPAR"),
        ("", "none of JASPAR"),
        (">a\nA [1 2]\nC [1 2]\nG [1 2]\n", "four lines of counts"),
        (">a\nA [1 2]\nC [1 2]\nG [1 2]\nT [1]\n", "different lengths"),
        (">a\nA [1 2]\nG [1 2]\nC [1 2]\nT [1 2]\n", "the counts of C are expected"),
        (">a\nA [1 x]\nC [1 2]\nG [1 2]\nT [1 2]\n", "line 2: numbers are expected, found '[1 x]'"),
        (">a\nA [1 0]\nC [1 0]\nG [1 0]\nT [1 0]\n", "a place without any"),
        (">a\nA [1 -1]\nC [1 2]\nG [1 2]\nT [1 2]\n", "a count below 0"),
        (">a\nA [1]\nC [1]\nG [1]\nT [1]\n>a\nA [1]\nC [1]\nG [1]\nT [1]\n", "motif a stands twice"),
        (TRANSFAC.rpartition("//")[0], "has no end"),
        (TRANSFAC.replace("94", "ninety"), "4 numbers are expected"),
        (TRANSFAC.replace("PO\tA\tC", "PO\tC\tA"), "columns A, C, G, T"),
        (MEME.replace("w= 3 ", ""), "does not say its width"),
        (MEME.replace("w= 2", "w= 200"), "200 lines and some sites"),
        (MEME.replace("ACGT", "ACDEFGHIKLMNPQRSTVWY"), "motifs of DNA"),
        ("MEME version 4\n", "holds no motif"),
    ],
)
def test_what_does_not_hold_together_is_one_sentence(tmp_path, text, said):
    (tmp_path / "motifs").write_text(text)
    with pytest.raises(InputError) as caught:
        read_motifs(tmp_path / "motifs")
    assert said in str(caught.value)


def test_a_cut_gzip_is_refused(tmp_path):
    (tmp_path / "motifs").write_bytes(gzip.compress(JASPAR.encode())[:-9])
    with pytest.raises(InputError, match="cannot be read"):
        read_motifs(tmp_path / "motifs")

"""Small sets of labelled sequences as an ingest run leaves them, and split files, written by code.

motif_rows(count, seed=0)      rows whose class is "site" where TATAAT stands in them, else "none"; the target is the
                               share of G and C, `targets` whether A or C begins the sequence
pair_rows(count, seed=0)       proteins and molecules, of a few of each; the target is higher where the protein has a
                               tryptophan and the molecule a chlorine
state_rows(count, seed=0)      proteins whose positions are H after A or L, E after V, else C, some not known
write_set(folder, rows, rows_per_group=..., groups_per_part=...)    parts below folder/data; their paths
write_splits(path, rows, split_of)                                  split_of(record) -> "train" or (split, fold)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.io.parquet import write_table
from schemas.tables import SEQUENCES, SEQUENCES_VERSION, SPLITS, SPLITS_VERSION

MOTIF = "TATAAT"
Row = dict[str, Any]


def motif_rows(count: int, *, seed: int = 0, low: int = 24, high: int = 40) -> list[Row]:
    """Every second has the motif; lengths differ."""
    draw = random.Random(seed)
    rows = []
    for record in range(count):
        text = "".join(draw.choice("ACGT") for _ in range(draw.randint(low, high))).replace(MOTIF, "TATACT")
        if record % 2:
            place = draw.randrange(len(text) - len(MOTIF))
            text = text[:place] + MOTIF + text[place + len(MOTIF) :]
        rows.append(
            row(
                record,
                text,
                label="site" if record % 2 else "none",
                target=(text.count("G") + text.count("C")) / len(text),
                targets=[float(text[0] == "A"), float(text[0] in "AC")],
            )
        )
    return rows


MOLECULES = ("CCO", "CCCl", "c1ccccc1", "ClC(Cl)Br", "N[C@@H](C)C(=O)O", "Clc1ccccc1", "CC(=O)O", "OCCCl")


def pair_rows(count: int, *, seed: int = 0) -> list[Row]:
    """Pairs of one of 12 proteins with one of 8 molecules, none twice for counts up to 96."""
    draw = random.Random(seed)
    proteins = ["".join(draw.choices("ACDEFGHIKLMNPQRSTVY", k=draw.randint(12, 24))) for _ in range(12)]
    proteins = [text[:5] + "W" + text[5:] if place % 2 else text for place, text in enumerate(proteins)]
    places = [(one, other) for one in range(12) for other in range(8)]
    draw.shuffle(places)
    return [
        row(
            record,
            proteins[one],
            id=f"t{one}",
            second=MOLECULES[other],
            second_id=f"d{other}",
            target=5.0 + 2.0 * ("W" in proteins[one]) * ("Cl" in MOLECULES[other]) + draw.gauss(0, 0.05),
        )
        for record, (one, other) in enumerate(places[:count])
    ]


def state_rows(count: int, *, seed: int = 0) -> list[Row]:
    """A position's state follows from the letter before it."""
    draw = random.Random(seed)
    known = {"A": "H", "L": "H", "V": "E"}
    rows = []
    for record in range(count):
        text = "".join(draw.choices("AACDEFGLLVVWY", k=draw.randint(12, 30)))
        states = ["C", *(known.get(letter, "C") for letter in text[:-1])]
        states = [state if draw.random() < 0.95 or not place else "." for place, state in enumerate(states)]
        rows.append(row(record, text, position_labels="".join(states)))
    return rows


def row(record: int, sequence: str | None, **values: Any) -> Row:
    """A kept row with the given columns; the others are null."""
    empty = dict.fromkeys(SEQUENCES.names)
    known = {"record": record, "id": f"r{record}", "sequence": sequence, "length": len(sequence or ""), "state": "kept"}
    return {**empty, **known, **values}


def write_set(folder: Path, rows: Sequence[Row], *, rows_per_group: int = 16, groups_per_part: int = 2) -> list[Path]:
    """Parts with several row groups each, as large sets have them."""
    (folder / "data" / "000").mkdir(parents=True)
    size, paths = rows_per_group * groups_per_part, []
    metadata = {"replisome.schema": "sequences", "replisome.schema_version": str(SEQUENCES_VERSION)}
    for number, begin in enumerate(range(0, len(rows), size)):
        table = pa.Table.from_pylist(list(rows[begin : begin + size]), SEQUENCES).replace_schema_metadata(metadata)
        path = folder / "data" / "000" / f"part-{number:06d}.parquet"
        pq.write_table(table, path, row_group_size=rows_per_group, write_page_checksum=True)
        paths.append(path)
    return paths


def write_splits(path: Path, rows: Sequence[Row], split_of: Callable[[int], Any]) -> Path:
    """A row for every kept record."""
    made = []
    for one in rows:
        found = split_of(one["record"])
        split, fold = found if isinstance(found, tuple) else (found, None)
        made.append({"record": one["record"], "id": one["id"], "split": split, "fold": fold})
    write_table(pa.Table.from_pylist(made, SPLITS), path, schema_name="splits", version=SPLITS_VERSION)
    return path


def usual_split(record: int) -> str:
    """Of ten pairs of records six to train on, two to validate, two to test."""
    return ("train", "train", "train", "validation", "test")[record // 2 % 5]

"""Where things lie below a run's output, and the one way its JSON files are written and read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from engine.errors import DataError
from engine.storage.store import Store

RUN = "run.json"
PLAN = "plan.parquet"
LOCK = "run.lock"
CLAIMS = ".lock"
LOG = "run.log"
FILES = "files.parquet"
MANIFEST = "manifest.json"
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
RECEIPTS = "receipts"
ALL_RECEIPTS = "receipts/receipts.parquet"
FORMER = "former"
# In the order in which --force removes them: run.json last, so that parts never lie there without the key they are of.
OWN_FOLDERS = ("data", "rejects", "vcf", RECEIPTS)
OWN_FILES = (PLAN, FILES, REPORT_JSON, REPORT_HTML, RUN)
_SHARDS_PER_FOLDER = 1000
_PART = re.compile(r"(data|rejects|vcf)/\d+/part-\d+\.(parquet|gz)")
_SEGMENT = re.compile(RECEIPTS + r"/segment-[0-9a-f]+-\d+\.parquet")


def data_part(shard: int) -> str:
    """The data part of a shard; its presence is what makes the shard finished."""
    return f"{_folder('data', shard)}/part-{shard:06d}.parquet"


def rejects_part(shard: int) -> str:
    """The rejects part of a shard, only there where it rejected something."""
    return f"{_folder('rejects', shard)}/part-{shard:06d}.parquet"


def body_part(shard: int) -> str:
    """The BGZF text body of a shard."""
    return f"{_folder('vcf', shard)}/part-{shard:06d}.gz"


def _folder(kind: str, shard: int) -> str:
    return f"{kind}/{shard // _SHARDS_PER_FOLDER:03d}"


def is_part(name: str) -> bool:
    """True for the name of a part of any kind; other files may lie in our folders too (.DS_Store, .nfs...)."""
    return _PART.fullmatch(name) is not None


def is_segment(name: str) -> bool:
    """True for receipts, single segments and those of the commit."""
    return name == ALL_RECEIPTS or _SEGMENT.fullmatch(name) is not None


def shard_of(name: str) -> int:
    """Shard id from the name of any part."""
    return int(name.rsplit("part-", 1)[1].split(".", 1)[0])


def canonical_json(value: Any) -> bytes:
    """The one text of a JSON value: sorted keys, fixed spacing, one final newline."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def sealed_json(content: Mapping[str, Any]) -> bytes:
    """Canonical JSON that carries the SHA-256 of itself without the digest."""
    return canonical_json({**content, "digest": json_digest(content)})


def json_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 hex of the canonical text."""
    return hashlib.sha256(canonical_json(content)).hexdigest()


def read_sealed(store: Store, name: str) -> dict[str, Any]:
    """Read a sealed JSON file back.

    Raises:
        DataError: any byte differs from what was written.
        FileNotFoundError: there is no such file.
    """
    data = store.read(name)
    try:
        content = json.loads(data)
        digest = content.pop("digest")
        intact = sealed_json(content) == data
    except (ValueError, AttributeError, KeyError, TypeError):
        intact = False
    if not intact:
        raise DataError(
            "the file was changed after it was written (its digest differs)",
            where=f"{store.uri}/{name}",
            fix="restore it, or run again with --force to score anew",
        )
    return {**content, "digest": digest}

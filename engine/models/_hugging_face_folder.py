"""A Hugging Face folder on disk, read without running anything of it: configuration, tokenizer, tensors.

Nothing is fetched, no code of the folder runs, and only safetensors are read.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from engine.errors import InputError
from engine.models._hugging_face_tokens import ALPHABETS, DNA, Tokens, TokenTable
from engine.models._info import MAX_SPEC_BYTES, SPEC_NAME
from engine.models._safetensors import file_sha256, no_duplicates, read_header

CONFIG = "config.json"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.safetensors")
_FETCH = "fetch the folder again"
_AMINO_ACIDS = ALPHABETS["protein"][:20]
# What says nothing of the network's numbers.
_NOT_KEPT = ("_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype", "auto_map")
_PROBES = 40


@dataclass(frozen=True)
class BaseFolder:
    """Attributes:
    path: the folder.
    config: what config.json says of the network.
    tokens: how its tokenizer reads letters.
    digest: sha256 over config and the sha256 of every tensor file.
    files: tensor files.
    """

    path: Path
    config: Mapping[str, Any]
    tokens: TokenTable
    digest: str
    files: tuple[Path, ...]


def is_hugging_face(path: str | Path) -> bool:
    """Whether a folder is one of Hugging Face's, told by its own config.json."""
    return (Path(path) / CONFIG).is_file() and not (Path(path) / SPEC_NAME).is_file()


def transformers() -> Any:
    """The package.

    Raises:
        InputError: it is not installed.
    """
    try:
        import transformers as found
    except ImportError as error:
        fix = "pip install 'replisome[models]'"
        raise InputError(
            "Hugging Face folders need the package transformers", where="model hugging_face", fix=fix
        ) from error
    return found


def read_folder(path: str | Path) -> BaseFolder:
    """Read and check everything but the tensors' values.

    Raises:
        InputError: no such folder; it needs code of its own, holds pickled weights alone, is quantised or has a
            decoder; a file that does not parse; a tokenizer that reads neither DNA nor protein letters.
    """
    folder = Path(path).expanduser()
    config = _config(folder)
    files = _tensor_files(folder)
    lines = [json.dumps(config, sort_keys=True), *(f"{one.name} {file_sha256(one)}" for one in files)]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return BaseFolder(folder, config, _tokens(folder), digest, files)


def read_tensors(folder: BaseFolder) -> dict[str, Any]:
    """Every tensor by name, on the CPU.

    Raises:
        InputError: a file does not read.
    """
    found: dict[str, Any] = {}
    for path in folder.files:
        try:
            found |= load_file(path)
        except SafetensorError as error:
            raise InputError(f"does not read: {error}", where=str(path), fix=_FETCH) from error
    return found


def table_values(table: TokenTable) -> dict[str, Any]:
    """The table as plain values; what is empty is left out."""
    return {name: value for name, value in asdict(table).items() if value not in ("", ())}


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_SPEC_BYTES:
        raise InputError(f"larger than {MAX_SPEC_BYTES} bytes", where=str(path), fix=_FETCH)
    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=no_duplicates)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"does not parse as JSON: {reason}", where=str(path), fix=_FETCH) from error
    if not isinstance(found, dict):
        raise InputError("holds no JSON object", where=str(path), fix=_FETCH)
    return found


def _config(folder: Path) -> dict[str, Any]:
    where = str(folder)
    if (folder / SPEC_NAME).is_file():
        fix = "use transfer.init_from to begin from it"
        raise InputError("this is a model folder of ours, not one of Hugging Face", where=where, fix=fix)
    if not (folder / CONFIG).is_file():
        fix = "give a folder on disk as save_pretrained writes it; nothing is fetched"
        raise InputError(f"no Hugging Face folder: no {CONFIG} in it", where=where, fix=fix)
    config = _json(folder / CONFIG)
    where = str(folder / CONFIG)
    if not isinstance(config.get("model_type"), str):
        raise InputError("names no model_type", where=where, fix=_FETCH)
    if config.get("auto_map"):
        fix = "use a model that transformers itself knows"
        raise InputError("the model needs code of its own (auto_map), which is never run", where=where, fix=fix)
    if config.get("quantization_config"):
        raise InputError("the weights are quantised", where=where, fix="give the folder of the full weights")
    if config.get("is_encoder_decoder"):
        raise InputError("the model has a decoder", where=where, fix="give an encoder, such as ESM-2 or BERT")
    return {name: config[name] for name in sorted(config) if name not in _NOT_KEPT}


def _tensor_files(folder: Path) -> tuple[Path, ...]:
    if (folder / _WEIGHTS).is_file():
        names = [_WEIGHTS]
    elif (folder / _INDEX).is_file():
        names = _indexed(folder / _INDEX)
    else:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".h5", ".msgpack"))
        what = f"{pickled[0]} can run code when read and is never opened" if pickled else f"no {_WEIGHTS}"
        fix = "fetch its safetensors, or convert it once with save_pretrained where you trust it"
        raise InputError(what, where=str(folder), fix=fix)
    for name in names:
        if not (folder / name).is_file():
            raise InputError("the file is missing", where=str(folder / name), fix=_FETCH)
        read_header(folder / name)
    return tuple(folder / name for name in names)


def _indexed(path: Path) -> list[str]:
    places = _json(path).get("weight_map")
    names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
    wrong = [name for name in names if not _FILE_NAME.fullmatch(name)]
    if wrong or not names:
        what = f"weight_map names {wrong[0][:200]!r}" if wrong else "no weight_map in it"
        raise InputError(what, where=str(path), fix=_FETCH)
    return names


def _tokens(folder: Path) -> TokenTable:
    """How the folder's tokenizer reads letters, found out by asking it and proved on drawn sequences."""
    where = str(folder)
    own = folder / "tokenizer_config.json"
    if own.is_file() and _json(own).get("auto_map"):
        fix = "use a model that transformers itself knows"
        raise InputError("the tokenizer needs code of its own (auto_map), which is never run", where=where, fix=fix)
    try:
        tokenizer = transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        what = f"its tokenizer does not load: {' '.join(str(error).split())[:300]}"
        raise InputError(what, where=where, fix="give a folder that holds vocab.txt or tokenizer.json") from error
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    alphabet = "protein" if all(letter in vocabulary for letter in _AMINO_ACIDS) else "dna"
    table = _letter_table(tokenizer, vocabulary, alphabet)
    if table is None and getattr(tokenizer, "is_fast", False):
        table = _subword_table(tokenizer)
    if table is None:
        fix = "give a model of DNA or protein that reads letters, k-mers that do not overlap, or subwords"
        raise InputError("its tokenizer does not take plain sequences", where=where, fix=fix)
    return table


def _letter_table(tokenizer: Any, vocabulary: Mapping[str, int], alphabet: str) -> TokenTable | None:
    """None where it does something else."""
    letters, unknown = ALPHABETS[alphabet], tokenizer.unk_token_id
    if any(letter not in vocabulary for letter in (_AMINO_ACIDS if alphabet == "protein" else DNA[:4])):
        return None
    # Letters that are spelled apart (ProtBert) are the same tokens.
    ways: tuple[Callable[[str], str], ...] = (str, " ".join)
    for spelled in ways:
        ids = list(tokenizer(spelled(letters[0]))["input_ids"])
        if ids.count(vocabulary[letters[0]]) != 1 or tokenizer.pad_token_id is None:
            continue
        at = ids.index(vocabulary[letters[0]])
        of_letters = [vocabulary.get(letter, unknown) for letter in letters]
        if None in of_letters:
            continue
        table = TokenTable(
            alphabet=alphabet,
            pad=tokenizer.pad_token_id,
            before=tuple(ids[:at]),
            after=tuple(ids[at + 1 :]),
            letters=tuple(of_letters),
            kmers=_kmers(vocabulary) if alphabet == "dna" else (),
        )
        if _agrees(table, tokenizer, spelled):
            return table
    return None


def _kmers(vocabulary: Mapping[str, int]) -> tuple[int, ...]:
    """Tokens of the longest k-mers that are all there."""
    for k in range(8, 1, -1):
        if len(vocabulary) >= 4**k:
            words = ["".join(letters) for letters in product(DNA[:4], repeat=k)]
            if all(word in vocabulary for word in words):
                return tuple(vocabulary[word] for word in words)
    return ()


def _agrees(table: TokenTable, tokenizer: Any, spelled: Callable[[str], str]) -> bool:
    """Whether the table makes the tokenizer's own tokens of drawn sequences."""
    tokens = Tokens(table)
    return all(_tokens_of(tokens, text) == list(tokenizer(spelled(text))["input_ids"]) for text in _probes(table))


def _probes(table: TokenTable) -> list[str]:
    drawn = random.Random(0)
    letters = ALPHABETS[table.alphabet]
    texts = ["".join(drawn.choices(letters, k=length)) for length in range(1, _PROBES)]
    return texts + ["".join(drawn.choices(letters[:4], k=length)) for length in range(1, _PROBES)]


def _tokens_of(tokens: Tokens, text: str) -> list[int]:
    codes_1L = torch.tensor([[ALPHABETS[tokens.table.alphabet].index(letter) for letter in text]])
    found: list[int] = tokens(codes_1L, torch.tensor([len(text)]))[0][0].tolist()
    return found


def _subword_table(tokenizer: Any) -> TokenTable | None:
    """None where plain sequences are unknown words to it, or letters are lost."""
    drawn = random.Random(0)
    for alphabet, letters in (("protein", _AMINO_ACIDS), ("dna", DNA[:4])):
        text = "".join(drawn.choices(letters, k=200))
        found = tokenizer(text, return_offsets_mapping=True)
        covered = sum(end - begin for begin, end in found["offset_mapping"])
        if tokenizer.pad_token_id is None or tokenizer.unk_token_id in found["input_ids"] or covered != len(text):
            continue
        return TokenTable(alphabet, tokenizer.pad_token_id, subwords=tokenizer.backend_tokenizer.to_str())
    return None

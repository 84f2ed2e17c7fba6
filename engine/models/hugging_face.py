"""One answer per sequence by a pre-trained network from a Hugging Face folder, frozen, adapted or fine-tuned.

ESM-2 (Lin et al. 2023), Nucleotide Transformer (Dalla-Torre et al. 2025) and what transformers builds like them, as
long as it needs no code of its own. Adapters are low-rank (Hu et al. 2022, arXiv 2106.09685), by the package peft.

The folder is named when a model is trained. Its configuration and tokenizer become params, its tensors part of the
trained model: a model folder needs no other. Dropout inside the pre-trained network is off; ours lies before the head.

Shape letters: B batch, C channels, L letters, T tokens, H hidden width of the pre-trained network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import InputError
from engine.models._hugging_face_folder import read_folder, read_tensors, table_values, transformers
from engine.models._hugging_face_tokens import Tokens, TokenTable
from engine.models._sequence import SequenceNet, SequenceParams, check_choice, check_count, masked

TUNE = ("head", "adapters", "all")
# Parts that answer for other heads; what no loss reaches has no place in a network whose gradients are averaged.
_OTHER_HEADS = ("pooler", "contact_head")
# Their places are numbered from behind the padding token.
_PLACES_AFTER_PADDING = ("esm", "roberta", "xlm-roberta", "camembert")
_WHERE = "key 'model.params'"
_FETCH = "fetch the folder again"


@dataclass(frozen=True)
class HuggingFaceParams(SequenceParams):
    """Attributes beside those of SequenceParams (`channels` is the width that the head sees):

    config, tokens, base_sha256: from the folder, which a spec names as `folder` instead.
    tune: "head" leaves the pre-trained network as it is, "adapters" trains low-rank ones beside its weights, "all"
        trains all of it.
    rank: of the adapters.
    alpha: adapters count alpha / rank times.
    adapt: names of the linear layers that get an adapter.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    tokens: Mapping[str, Any] = field(default_factory=dict)
    base_sha256: str = ""
    tune: str = "head"
    rank: int = 8
    alpha: int = 16
    adapt: tuple[str, ...] = ("query", "value")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "adapt", tuple(str(name) for name in self.adapt))
        check_choice(self, "tune", TUNE)
        check_count(self, "rank", "alpha", low=1)
        if not self.config or not self.tokens:
            raise ValueError("folder must name the Hugging Face folder to begin from")
        table = self.table
        if self.num_tokens != table.num_letters:
            encoder = "tokens" if table.alphabet == "dna" else "protein_letters"
            raise ValueError(f"the folder reads {table.alphabet}: set encoder.name to {encoder}")

    @property
    def table(self) -> TokenTable:
        """How letters become tokens."""
        return TokenTable.of(self.tokens)

    @property
    def most_tokens(self) -> int | None:
        """Tokens of the longest sequence the pre-trained network takes, special ones included; None for any number."""
        if self.config.get("position_embedding_type") == "rotary":
            return None
        most = self.config.get("max_position_embeddings")
        if not isinstance(most, int):
            return None
        before = self.table.pad + 1 if self.config.get("model_type") in _PLACES_AFTER_PADDING else 0
        return most - before


class HuggingFace(SequenceNet):
    """See the module's docstring."""

    Params = HuggingFaceParams

    def __init__(self, params: HuggingFaceParams) -> None:
        super().__init__(params)
        self.enter = _Letters()  # type: ignore[assignment]
        self.tokens = Tokens(params.table)
        self.base = _with_adapters(_built(params.config), params)
        self.project = nn.Linear(self.base.config.hidden_size, params.channels)

    @staticmethod
    def completed(values: Mapping[str, Any]) -> dict[str, Any]:
        """A spec's params with those that its `folder` holds in the place of its name.

        Raises:
            InputError: the folder cannot be used; see read_folder.
        """
        given = dict(values)
        if "folder" not in given:
            return given
        for name in ("config", "tokens", "base_sha256"):
            if name in given:
                raise InputError(f"{name!r} comes from the folder", where=_WHERE, fix="leave it out")
        base = read_folder(str(given.pop("folder")))
        return {**given, "config": dict(base.config), "tokens": table_values(base.tokens), "base_sha256": base.digest}

    @staticmethod
    def most_letters(params: SequenceParams) -> int | None:
        """The longest sequence it takes; None where that depends on its letters, which `logits` then looks at."""
        assert isinstance(params, HuggingFaceParams)
        known, table, most = [params.length] if params.length else [], params.table, params.most_tokens
        if most is not None and not table.subwords:
            known.append((most - table.num_special) * table.k)
        return min(known, default=None)

    @staticmethod
    def token_check(params: SequenceParams) -> Callable[[Any], str | None] | None:
        """Tells of a sequence's letters (L,) uint8 why it has too many tokens; None where `most_letters` knows all."""
        assert isinstance(params, HuggingFaceParams)
        table, most = params.table, params.most_tokens
        if most is None or (table.k == 1 and not table.subwords):
            return None
        tokens, limit = Tokens(table), most

        def odd(letters_L: Any) -> str | None:
            found, _ = tokens(torch.as_tensor(letters_L)[None].long(), torch.tensor([len(letters_L)]))
            count = found.shape[1]
            return f"the sequence has {count:,} tokens, the model takes {limit:,} at most" if count > limit else None

        return odd

    def layers_in_order(self) -> list[list[str]]:
        """Names of modules by depth, those next to the letters first."""
        lists = [name for name, one in self.base.named_modules() if isinstance(one, nn.ModuleList) and len(one) > 0]
        layers = f"base.{lists[0]}" if lists else "base"
        depth = len(self.base.get_submodule(lists[0])) if lists else 0
        return [["base"], *([f"{layers}.{number}"] for number in range(depth)), ["project"], ["answer"]]

    def take_base(self, folder: str) -> None:
        """Take the pre-trained weights.

        Raises:
            InputError: the folder is not the one the params were made from, or lacks a tensor.
        """
        base = read_folder(folder)
        if base.digest != self.params.base_sha256:
            what = f"digest {base.digest[:12]}, this model was made from {self.params.base_sha256[:12]}"
            raise InputError(what, where=folder, fix="restore the folder, or train anew from the changed one")
        _take(self.base, read_tensors(base), folder)

    def trunk(self, x_B1L: Tensor, mask_BL: Tensor | None, lengths_B: Tensor | None) -> Tensor:
        """(B, 1, L) letters -> (B, C, L): each letter has what its token has."""
        letters_BL = x_B1L[:, 0]
        if lengths_B is None:
            lengths_B = torch.full(letters_BL.shape[:1], letters_BL.shape[1], device=letters_BL.device)
        ids_BT, place_BL = self.tokens(letters_BL, lengths_B)
        self._check_tokens(ids_BT.shape[1])
        mask_BT = ids_BT != self.tokens.table.pad
        found_BTH = self.base(input_ids=ids_BT, attention_mask=mask_BT.long()).last_hidden_state
        y_BTC = self.project(found_BTH)
        y_BLC = y_BTC.gather(1, place_BL[:, :, None].expand(-1, -1, y_BTC.shape[2]))
        return masked(y_BLC.transpose(1, 2), mask_BL)

    def _check_tokens(self, count: int) -> None:
        most = self.params.most_tokens
        if most is not None and count > most:
            raise ValueError(f"a sequence of {count} tokens is longer than the {most} the pre-trained network takes")


class _Letters(nn.Module):
    """Letters go to the tokens as they are."""

    def forward(self, x: Tensor, mask_BL: Tensor | None) -> Tensor:  # noqa: ARG002 - as other networks enter
        return x


def _built(config: Mapping[str, Any]) -> Any:
    """The network with drawn weights, dropout off.

    Raises:
        InputError: transformers does not know it or its settings.
    """
    package = transformers()
    values = {name: value for name, value in config.items() if name != "model_type"}
    values |= {name: 0.0 for name in values if name.endswith("dropout_prob")}
    try:
        known = package.AutoConfig.for_model(config["model_type"], **values)
        made = package.AutoModel.from_config(known, trust_remote_code=False, attn_implementation="sdpa")
        made.config.hidden_size  # noqa: B018 - what the head needs to know
    except Exception as error:
        what = f"transformers does not build the network of config.json: {' '.join(str(error).split())[:300]}"
        raise InputError(what, where=_WHERE, fix="give an encoder that transformers knows, such as ESM-2") from error
    for name in _OTHER_HEADS:
        if getattr(made, name, None) is not None:
            setattr(made, name, None)
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return made


def _with_adapters(base: Any, params: HuggingFaceParams) -> Any:
    """Only what `tune` says is left to train."""
    if params.tune != "all":
        base.requires_grad_(False)
    if params.tune != "adapters":
        return base
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        fix = "pip install 'replisome[models]'"
        raise InputError("adapters need the package peft", where=_WHERE, fix=fix) from error
    asked = LoraConfig(r=params.rank, lora_alpha=params.alpha, target_modules=list(params.adapt), lora_dropout=0.0)
    try:
        return inject_adapter_in_model(asked, base)
    except ValueError as error:
        names = sorted({name.rsplit(".", 1)[-1] for name, one in base.named_modules() if isinstance(one, nn.Linear)})
        what = f"adapt {list(params.adapt)} names no linear layer of the network"
        raise InputError(what, where=_WHERE, fix=f"known: {', '.join(names)}") from error


def _take(base: Any, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load what the folder holds under any of the names in use; adapters stay as they begin."""
    prefix = f"{base.base_model_prefix}."
    found = {_name_of(name.removeprefix(prefix)): tensor for name, tensor in tensors.items()}
    wrapped = {name.replace(".base_layer.", "."): name for name in base.state_dict()}
    try:
        state = {wrapped.get(name, name): tensor for name, tensor in found.items()}
        missing = base.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        what = f"a tensor does not fit config.json: {' '.join(str(error).split())[:300]}"
        raise InputError(what, where=where, fix=_FETCH) from error
    weights = {name for name, _ in base.named_parameters()}
    lacking = sorted(name for name in missing if name in weights and ".lora_" not in name)
    if lacking:
        what = f"the folder lacks {len(lacking)} tensors of the network, such as {lacking[0]!r}"
        raise InputError(what, where=where, fix=_FETCH)


def _name_of(name: str) -> str:
    """What older files of BERT call otherwise."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


COMPONENT = HuggingFace

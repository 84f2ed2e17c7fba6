"""Small Hugging Face folders, written by transformers itself with drawn weights."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import torch

ESM_LETTERS = "LAGVSERTIDPKQNFYMHWCXBUZO"
PROTBERT_LETTERS = "LAGVESIKRDTPNQFYMHCWXUBZO"


def _saved(network, folder: Path) -> Path:
    from transformers.utils import logging

    logging.disable_progress_bar()
    network.save_pretrained(folder)
    return folder


def esm_folder(folder: Path, *, seed: int = 0, **config) -> Path:
    """Kind of ESM-2: a token per residue, rotary places, `<cls>` before and `<eos>` after."""
    vocabulary = ["<cls>", "<pad>", "<eos>", "<unk>", *ESM_LETTERS, ".", "-", "<null_1>", "<mask>"]
    values = {"position_embedding_type": "rotary", "token_dropout": True, "emb_layer_norm_before": False, **config}
    return _esm(folder, vocabulary, seed=seed, eos="<eos>", values=values)


def nucleotide_folder(folder: Path, *, k: int = 3, seed: int = 0, **config) -> Path:
    """Kind of Nucleotide Transformer: k-mers and single letters, learned places, no token after."""
    words = ["".join(letters) for letters in product("ATCG", repeat=k)]
    vocabulary = ["<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "<bos>", *words, *"ATCGN"]
    values = {"position_embedding_type": "absolute", "token_dropout": False, "emb_layer_norm_before": False, **config}
    return _esm(folder, vocabulary, seed=seed, eos=None, values=values)


def _esm(folder: Path, vocabulary: list[str], *, seed: int, eos: str | None, values: dict) -> Path:
    from transformers import EsmConfig, EsmForMaskedLM, EsmTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    EsmTokenizer(str(folder / "vocab.txt"), eos_token=eos).save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    pad, mask = vocabulary.index("<pad>"), vocabulary.index("<mask>")
    values = {"max_position_embeddings": 60, "pad_token_id": pad, "mask_token_id": mask, **values}
    config = EsmConfig(vocab_size=len(vocabulary), **sizes, **values)
    return _saved(EsmForMaskedLM(config), folder)


def bert_folder(folder: Path, *, seed: int = 0, **config) -> Path:
    """Kind of ProtBert: residues spelled apart, learned places, `[CLS]` before and `[SEP]` after."""
    from transformers import BertForMaskedLM, BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PROTBERT_LETTERS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(vocab={word: place for place, word in enumerate(vocabulary)}, do_lower_case=False).save_pretrained(
        folder
    )
    torch.manual_seed(seed)
    return _saved(BertForMaskedLM(_bert_config(len(vocabulary), **config)), folder)


def subword_folder(folder: Path, *, seed: int = 0) -> Path:
    """Kind of GENA-LM: DNA cut into subwords by byte-pair encoding."""
    from tokenizers import Tokenizer, models, processors, trainers
    from transformers import BertForMaskedLM, PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = Tokenizer(models.BPE(unk_token="[UNK]"))
    torch.manual_seed(seed)
    texts = ["".join("ACGT"[code] for code in torch.randint(0, 4, (60,))) for _ in range(40)]
    made.train_from_iterator([*texts, "N"], trainers.BpeTrainer(vocab_size=60, special_tokens=special))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=made, mask_token="[MASK]", **names).save_pretrained(folder)
    return _saved(BertForMaskedLM(_bert_config(60)), folder)


def _bert_config(size: int, **values):
    from transformers import BertConfig

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return BertConfig(vocab_size=size, pad_token_id=0, max_position_embeddings=60, **sizes, **values)

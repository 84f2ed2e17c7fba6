"""Pre-trained networks from a folder: judged by transformers' own tokenizers, networks and peft's own arithmetic."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from engine import registry
from engine.errors import InputError
from engine.models._folder import load_members, save_model_folder
from engine.models._hugging_face_folder import is_hugging_face, read_folder
from engine.models._hugging_face_tokens import ALPHABETS, Tokens
from engine.models._info import open_model
from engine.models.hugging_face import HuggingFace
from tests.toys import hugging_face as toys
from tests.toys.golden import check
from tests.toys.models import CARD

torch.set_num_threads(1)

KINDS = {
    "esm": toys.esm_folder,
    "nucleotide": toys.nucleotide_folder,
    "bert": toys.bert_folder,
    "subword": toys.subword_folder,
}
ENCODER = {"dna": "tokens", "protein": "protein_letters"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {name: make(root / name) for name, make in KINDS.items()}


def encoder_of(alphabet):
    cls = registry.component("encoders", ENCODER[alphabet])
    return cls(cls.Params())


def network(folder, **values):
    encoder = encoder_of(read_folder(folder).tokens.alphabet)
    given = {"channels": 6, "in_channels": 1, "num_tokens": encoder.num_tokens, "folder": str(folder), **values}
    torch.manual_seed(1)
    model = HuggingFace(HuggingFace.Params(**HuggingFace.completed(given)))
    model.take_base(str(folder))
    return model.eval()


def batch(texts, alphabet, *, more=0):
    encoder = encoder_of(alphabet)
    codes_BL = np.zeros((len(texts), max(map(len, texts)) + more), dtype=np.uint8)  # padded by a letter that counts
    for row, text in zip(codes_BL, texts, strict=True):
        row[: len(text)] = encoder.encode(text)
    return encoder.tensor(torch.from_numpy(codes_BL)), torch.tensor([len(text) for text in texts])


def own_tokens(folder, text):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer(" ".join(text) if "bert" in folder.name else text)["input_ids"]


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(data=st.data())
@settings(max_examples=15)
def test_letters_become_the_tokens_of_the_folders_own_tokenizer(kind, folders, data):
    table = read_folder(folders[kind]).tokens
    text = st.text(alphabet=ALPHABETS[table.alphabet], min_size=1, max_size=40)
    texts = data.draw(st.lists(text, min_size=1, max_size=3))
    x, lengths_B = batch(texts, table.alphabet, more=data.draw(st.integers(0, 5)))
    ids_BT, place_BL = Tokens(table)(x[:, 0], lengths_B)
    for ids_T, place_L, text in zip(ids_BT.tolist(), place_BL.tolist(), texts, strict=True):
        wanted = own_tokens(folders[kind], text)
        assert ids_T == wanted + [table.pad] * (len(ids_T) - len(wanted))
        used = place_L[: len(text)]
        # Letters lie in their tokens in order, and no token of letters is left out.
        first = len(table.before) if not table.subwords else 1
        assert used == sorted(used)
        assert set(used) == set(range(first, len(wanted) - (1 if table.subwords else len(table.after))))


def test_kmers_begin_anew_behind_an_unknown_base(folders):
    table = read_folder(folders["nucleotide"]).tokens
    x, lengths_B = batch(["ACGTANACGTACG"], "dna")
    words = (folders["nucleotide"] / "vocab.txt").read_text().split()
    ids_BT, place_BL = Tokens(table)(x[:, 0], lengths_B)
    assert [words[one] for one in ids_BT[0]] == ["<cls>", "ACG", "T", "A", "N", "ACG", "TAC", "G"]
    assert place_BL.tolist() == [[1, 1, 1, 2, 3, 4, 5, 5, 5, 6, 6, 6, 7]]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_letter_has_what_the_own_network_gives_its_token(kind, folders):
    from transformers import AutoModelForMaskedLM

    folder, model = folders[kind], network(folders[kind])
    judge = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
    alphabet = model.params.table.alphabet
    texts = ["".join(np.random.default_rng(length).choice(list(ALPHABETS[alphabet]), length)) for length in (25, 3, 14)]
    x, lengths_B = batch(texts, alphabet)
    with torch.inference_mode():
        y_BCL = model.trunk(x, None, lengths_B)
        _, place_BL = model.tokens(x[:, 0], lengths_B)
        for number, text in enumerate(texts):
            ids = torch.tensor([own_tokens(folder, text)])
            hidden_TH = judge(ids, output_hidden_states=True).hidden_states[-1][0]
            wanted_LC = model.project(hidden_TH)[place_BL[number, : len(text)]]
            torch.testing.assert_close(y_BCL[number, :, : len(text)].T, wanted_LC, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_padding_and_company_never_change_an_answer(kind, folders):
    model = network(folders[kind], outputs=("a", "b"), pool="mean+max+attention")
    alphabet = model.params.table.alphabet
    texts = ["".join(np.random.default_rng(length).choice(list(ALPHABETS[alphabet]), length)) for length in (21, 1, 8)]
    with torch.inference_mode():
        together = model(*batch(texts, alphabet, more=4))["value"]
        for answer, text in zip(together, texts, strict=True):
            torch.testing.assert_close(model(batch([text], alphabet)[0])["value"][0], answer, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("tune", "trained"), [("head", ()), ("adapters", (".lora_",)), ("all", ("",))])
def test_what_tune_leaves_to_train(tune, trained, folders):
    model = network(folders["esm"], tune=tune).train()
    for name, one in model.base.named_parameters():
        assert one.requires_grad == any(part in name for part in trained), name
    assert all(one.requires_grad for one in model.answer.parameters())
    from engine.models._sample_dropout import set_sample_seeds

    set_sample_seeds(model, torch.arange(2))
    model.logits(*batch(["MKTAYIAK", "GG"], "protein")).sum().backward()
    # No parameter is left without a gradient: workers that average them would wait for it.
    assert not [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]


def test_an_adapted_network_is_the_one_with_the_products_added(folders):
    plain, adapted = network(folders["esm"]), network(folders["esm"], tune="adapters", rank=2, alpha=6)
    adapted.project.load_state_dict(plain.project.state_dict())
    x, lengths_B = batch(["MKTAYIAKQR", "GGC"], "protein")
    with torch.no_grad():
        torch.testing.assert_close(adapted.trunk(x, None, lengths_B), plain.trunk(x, None, lengths_B))
        state = adapted.base.state_dict()
        for name, one in adapted.base.named_parameters():
            if ".lora_B." in name:
                one.copy_(torch.randn_like(one))
                place = name.split(".lora_B.")[0]
                product = 6 / 2 * one @ state[f"{place}.lora_A.default.weight"]
                plain.base.get_submodule(place).weight += product
        torch.testing.assert_close(
            adapted.trunk(x, None, lengths_B), plain.trunk(x, None, lengths_B), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("tune", ["head", "adapters"])
def test_a_model_folder_needs_no_other(tune, tmp_path):
    base = toys.esm_folder(tmp_path / "base")
    model = network(base, tune=tune)
    with torch.no_grad():
        for one in model.parameters():
            one.add_(0.01)
    card = replace(CARD, encoder={"name": "protein_letters", "params": {}})
    saved = save_model_folder(tmp_path / "model", [model], architecture="hugging_face", card=card)
    shutil.rmtree(base)
    found = load_members(open_model(str(tmp_path / "model")))[0]
    x, lengths_B = batch(["MKTAYIAKQRUX", "GGC"], "protein")
    with torch.inference_mode():
        assert torch.equal(found(x, lengths_B)["value"], model(x, lengths_B)["value"])
    assert saved.params["base_sha256"] == model.params.base_sha256
    assert str(base) not in (tmp_path / "model" / "replisome.json").read_text()


def test_tensors_in_several_files_are_the_same_network(tmp_path):
    whole = toys.esm_folder(tmp_path / "whole")
    parts = tmp_path / "parts"
    shutil.copytree(whole, parts)
    tensors = load_file(parts / "model.safetensors")
    (parts / "model.safetensors").unlink()
    places = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(sorted(tensors))}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in tensors if places[name] == file}, parts / file)
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    one, other = network(whole), network(parts)
    assert all(torch.equal(one.base.state_dict()[name], tensor) for name, tensor in other.base.state_dict().items())


def test_the_encoder_must_be_the_alphabets(folders):
    values = {"folder": str(folders["esm"]), "in_channels": 1, "num_tokens": 5}
    with pytest.raises(ValueError, match=r"the folder reads protein: set encoder.name to protein_letters"):
        HuggingFace.Params(**HuggingFace.completed(values))


def test_what_is_too_long_is_said(folders):
    model = network(folders["nucleotide"])
    assert HuggingFace.most_letters(model.params) == (60 - 2 - 1) * 3
    model.logits(*batch(["ACG" * 57], "dna"))
    with pytest.raises(ValueError, match="a sequence of 59 tokens is longer than the 58"):
        model.logits(*batch(["ACGN" * 29], "dna"))
    assert HuggingFace.most_letters(network(folders["esm"]).params) is None


def test_letters_that_make_too_many_tokens_are_told_before_the_network_sees_them(folders):
    model = network(folders["nucleotide"])
    odd, encoder = HuggingFace.token_check(model.params), encoder_of("dna")
    assert odd(encoder.encode("ACG" * 57)) is None
    assert odd(encoder.encode("ACGN" * 28 + "N")) is None
    assert odd(encoder.encode("ACGN" * 29)) == "the sequence has 59 tokens, the model takes 58 at most"
    assert "tokens, the model takes 60" in HuggingFace.token_check(network(folders["subword"]).params)(
        encoder.encode("ACGTN" * 80)
    )
    assert HuggingFace.token_check(network(folders["bert"]).params) is None  # its letters tell


class _Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_nothing_of_the_folder_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = toys.esm_folder(tmp_path / "base")
    assert is_hugging_face(base)
    (base / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb()))
    (base / "modeling_esm.py").write_text("import pathlib; pathlib.Path('exploded').touch()")
    network(base)
    assert not (tmp_path / "exploded").exists()


def changed_json(name, **values):
    def change(folder):
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**found, **values}))

    return change


def only_pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def leading_out(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))


def a_part_gone(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x.safetensors"}}))


def cut_short(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-9])


def twice_a_key(folder):
    (folder / "config.json").write_text('{"model_type": "esm", "model_type": "bert"}')


def words(folder):
    shutil.rmtree(folder)
    toys.bert_folder(folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    vocabulary["model"]["vocab"] = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "acgta": 5}
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (only_pickled, "pytorch_model.bin can run code when read and is never opened; fetch its safetensors"),
        (changed_json("config.json", auto_map={"AutoModel": "m.M"}), "code of its own .auto_map., which is never run"),
        (changed_json("tokenizer_config.json", auto_map={"AutoTokenizer": ["m.M", None]}), "tokenizer needs code of"),
        (changed_json("config.json", quantization_config={"bits": 4}), "the weights are quantised"),
        (changed_json("config.json", is_encoder_decoder=True), "the model has a decoder"),
        (changed_json("config.json", model_type=3), "names no model_type"),
        (changed_json("config.json", model_type="nonsense"), "transformers does not build the network"),
        (changed_json("config.json", hidden_size=17), "transformers does not build|does not fit config.json"),
        (changed_json("config.json", num_hidden_layers=3), "lacks 16 tensors of the network, such as 'encoder.layer.2"),
        (changed_json("config.json", intermediate_size=20), "a tensor does not fit config.json"),
        (leading_out, "weight_map names '../x.safetensors'"),
        (a_part_gone, "the file is missing"),
        (cut_short, "tensor data is"),
        (twice_a_key, "does not parse as JSON: key 'model_type' stands twice"),
        (words, "its tokenizer does not take plain sequences"),
        (lambda folder: (folder / "config.json").unlink(), "no Hugging Face folder: no config.json in it"),
        (lambda folder: (folder / "replisome.json").write_text("{}"), "a model folder of ours"),
    ],
)
def test_bad_folders_are_refused(change, says, tmp_path):
    folder = toys.esm_folder(tmp_path / "base")
    change(folder)
    with pytest.raises(InputError, match=says):
        network(folder)


def test_a_changed_base_is_refused(tmp_path):
    base = toys.esm_folder(tmp_path / "base")
    model = network(base)
    toys.esm_folder(base, seed=1)
    with pytest.raises(InputError, match=r"this model was made from .*; restore the folder"):
        model.take_base(str(base))


def test_adapters_need_a_layer_to_sit_on(folders):
    with pytest.raises(InputError, match=r"adapt .'q'. names no linear layer of the network; known: dense, key, query"):
        network(folders["esm"], tune="adapters", adapt=("q",))


@pytest.mark.parametrize("kind", ["esm", "nucleotide"])
def test_golden_numbers_of_this_version(kind, folders):
    """Weights by a formula, so that the numbers are those of the function alone."""
    model = network(folders[kind])
    with torch.inference_mode():
        for number, (_, one) in enumerate(sorted(model.named_parameters())):
            one.copy_((torch.arange(one.numel()).double() * 1.7 + number).sin().reshape(one.shape) / 3)
        alphabet = model.params.table.alphabet
        texts = {"protein": ["MKTAYIAK", "GGC"], "dna": ["ACGTTGNCAG", "GAT"]}[alphabet]
        x, lengths_B = batch(texts, alphabet)
        found = [*model.trunk(x, None, lengths_B)[:, :2, 1].flatten(), *model(x, lengths_B)["value"][:, 0]]
        check(HuggingFace, 1, found, GOLDEN[kind], tolerance=1e-5)


GOLDEN = {
    "esm": [-0.694809, 1.094762, -0.6943, 1.092897, 0.087295, 0.087301],
    "nucleotide": [-0.220287, 0.392531, -0.243897, 0.40204, 0.092614, 0.092259],
}

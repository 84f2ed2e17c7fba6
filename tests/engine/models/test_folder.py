import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import InputError, SystemFailure
from engine.models._folder import check_members, load_members, save_model_folder
from engine.models._info import open_model
from engine.models._safetensors import file_sha256
from engine.models.dilated_conv import DilatedConv, DilatedConvParams, spliceai_params
from tests.toys.models import CARD, base_counter, random_network, randomised

torch.set_num_threads(1)

SMALL = DilatedConvParams(channels=3, blocks=((3, 1),), skip_every=1)


@pytest.fixture
def folder(tmp_path):
    return Path(random_network(tmp_path / "net", SMALL, members=2).path)


def with_tensors(folder, change):
    """Change a member's tensors and record the new file: a folder that is consistent and wrong."""
    place = folder / "member-01.safetensors"
    tensors = load_file(place)
    change(tensors)
    save_file(tensors, place)
    with_spec(folder, lambda spec: spec["members"][1].update(bytes=place.stat().st_size, sha256=file_sha256(place)))


def with_spec(folder, change):
    place = folder / "replisome.json"
    spec = json.loads(place.read_text())
    change(spec)
    place.write_text(json.dumps(spec))


def test_loads_the_tensors_that_were_saved(tmp_path):
    saved = [randomised(DilatedConv(SMALL), seed=seed) for seed in (1, 2)]
    info = save_model_folder(tmp_path / "net", saved, architecture="dilated_conv", card=CARD)
    loaded = load_members(info)
    for before, after in zip(saved, loaded, strict=True):
        assert not after.training
        assert not any(tensor.requires_grad for tensor in after.parameters())
        assert before.state_dict().keys() == after.state_dict().keys()
        assert all(torch.equal(tensor, after.state_dict()[name]) for name, tensor in before.state_dict().items())
    assert load_members(info, dtype=torch.float64)[0].stem.weight.dtype == torch.float64


def test_the_same_networks_give_the_same_bytes(tmp_path):
    one = random_network(tmp_path / "one", SMALL, members=2)
    model = [member.to(memory_format=torch.channels_last) for member in load_members(one)]
    save_model_folder(tmp_path / "two", model, architecture="dilated_conv", card=CARD)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["README.md", "member-00.safetensors", "member-01.safetensors", "replisome.json"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_published_sizes_survive_the_folder(tmp_path):
    info = random_network(tmp_path / "net", spliceai_params(2000))
    assert info.context_bp == 2000
    assert load_members(info)[0].params == spliceai_params(2000)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("stem.bias"), "missing tensor 'stem.bias'"),
        (lambda t: [t.pop(name) for name in sorted(t)[:7]], r"missing tensor '.*', '.*' and 2 more"),
        (lambda t: t.update(extra=torch.zeros(1)), "tensor 'extra' is not part of the architecture"),
        (lambda t: t.update({"stem.bias": torch.zeros(4)}), r"'stem.bias' has shape \[4\], the architecture \[3\]"),
        (lambda t: t.update({"stem.bias": torch.zeros(3).half()}), "'stem.bias' is F16, the architecture F32"),
    ],
)
def test_tensors_that_are_not_the_architectures(folder, change, sentence):
    with_tensors(folder, change)
    info = open_model(folder)
    for door in (check_members, load_members):
        with pytest.raises(InputError, match=f"member-01.safetensors: .*{sentence}"):
            door(info)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.update(architecture="dilated_cov"), "no architecture named 'dilated_cov'.*'dilated_conv'"),
        (lambda s: s.update(architecture="../x"), "no architecture named '../x'"),
        (lambda s: s["params"].update(channels=-1), "channels must be a whole number"),
        (lambda s: s["params"].update(depth=3), "unknown parameter 'depth'"),
        (lambda s: s["params"].update(outputs=["a", "b", "c"]), "heads .* are not those its params give"),
        (lambda s: s.update(context_bp=6), "context_bp 6, its params give 4"),
        (lambda s: s["encoder"].update(name="tokens"), "encoder 'tokens' gives 1 channels, the network takes 4"),
        (lambda s: s["encoder"].update(name="onehot"), "no encoder named 'onehot'; did you mean 'one_hot'"),
        (lambda s: s["encoder"]["params"].update(unknown=1), "unknown must be 'zero' or 'quarter', found 1"),
    ],
)
def test_a_spec_that_does_not_fit_its_architecture(folder, change, sentence):
    with_spec(folder, change)
    with pytest.raises(InputError, match=sentence):
        check_members(open_model(folder))


def test_a_file_changed_after_opening_is_not_loaded(folder):
    info = open_model(folder)
    with_tensors(folder, lambda tensors: tensors["stem.bias"].add_(1))
    with pytest.raises(InputError, match=r"member-01\.safetensors: the file is not the one the run was planned with"):
        load_members(info)


def test_an_existing_folder_is_kept_unless_asked(tmp_path):
    first = base_counter(tmp_path / "net")
    with pytest.raises(InputError, match="the folder exists"):
        base_counter(tmp_path / "net", width=7)
    assert open_model(first.path) == first
    model = randomised(DilatedConv(SMALL))
    second = save_model_folder(tmp_path / "net", [model], architecture="dilated_conv", card=CARD, overwrite=True)
    assert open_model(first.path) == second != first
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_overwrite_never_replaces_what_is_no_model_folder(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text").write_text("years of work")
    model = randomised(DilatedConv(SMALL))
    with pytest.raises(InputError, match="the folder exists"):
        save_model_folder(tmp_path / "thesis", [model], architecture="dilated_conv", card=CARD, overwrite=True)
    assert (tmp_path / "thesis" / "text").read_text() == "years of work"


def test_members_must_be_alike(tmp_path):
    other = dataclasses.replace(SMALL, channels=4)
    with pytest.raises(InputError, match="member 1 is of another class or other params"):
        save_model_folder(
            tmp_path / "net", [DilatedConv(SMALL), DilatedConv(other)], architecture="dilated_conv", card=CARD
        )
    with pytest.raises(InputError, match="member 0 is of another class"):
        save_model_folder(tmp_path / "net", [DilatedConv(SMALL)], architecture="splice_grammar", card=CARD)
    with pytest.raises(InputError, match="0 members, allowed are 1 to 100"):
        save_model_folder(tmp_path / "net", [], architecture="dilated_conv", card=CARD)


@pytest.mark.parametrize("name", ["member-00.safetensors", "member-01.safetensors"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, name):
    real = Path.write_bytes

    def write_bytes(self, data):
        if self.name == name:
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(SystemFailure, match="net: cannot be written: No space left on device"):
        random_network(tmp_path / "net", SMALL, members=2)
    assert list(tmp_path.iterdir()) == []


def test_a_card_that_no_reader_takes_is_not_saved(tmp_path):
    card = dataclasses.replace(CARD, encoder={"name": "tokens", "params": {}})
    with pytest.raises(InputError, match="encoder 'tokens' gives 1 channels"):
        save_model_folder(tmp_path / "net", [DilatedConv(SMALL)], architecture="dilated_conv", card=card)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_moves_with_its_digest(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert open_model(moved).digest == open_model(folder).digest

"""OpenSpliceAI's state dicts become the same network; a hostile .pt file runs nothing and is refused."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.errors import InputError
from engine.models import _import_openspliceai as importer
from engine.models._folder import load_members
from engine.models._torch_archive import read_tensors
from engine.models.dilated_conv import spliceai_params
from tests.toys.keras import SCHEDULES

torch.set_num_threads(1)


def toy(flank: int = 80, *, seed: int = 0) -> nn.ModuleDict:
    """Modules under OpenSpliceAI's names, with random weights and statistics."""
    units: list[nn.Module] = []
    for width, dilation in SCHEDULES[flank]:
        for _ in range(4):
            parts: dict[str, nn.Module] = {}
            for half in (1, 2):
                parts[f"batchnorm{half}"] = nn.BatchNorm1d(32)
                parts[f"conv{half}"] = nn.Conv1d(32, 32, width, dilation=dilation, padding="same")
            units.append(nn.ModuleDict(parts))
        units.append(nn.ModuleDict({"conv": nn.Conv1d(32, 32, 1)}))
    made = nn.ModuleDict(
        {
            "initial_conv": nn.Conv1d(4, 32, 1),
            "initial_skip": nn.ModuleDict({"conv": nn.Conv1d(32, 32, 1)}),
            "residual_units": nn.ModuleList(units),
            "final_conv": nn.Conv1d(32, 3, 1),
        }
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if tensor.dtype == torch.float32:
                noise = torch.randn(tensor.shape, generator=generator)
                scale = 1 / np.sqrt(tensor[0].numel()) if tensor.ndim == 3 else 0.1
                shift = 1.0 if "batchnorm" in name and name.endswith("weight") else 0.0
                tensor.copy_(0.5 + noise.abs() if name.endswith("running_var") else shift + scale * noise)
    return made.eval()


def expected(net, x: torch.Tensor, flank: int) -> torch.Tensor:
    """The published network: padded, LeakyReLU 0.1, skips summed, cropped at last."""
    act = nn.LeakyReLU(0.1)
    x = net["initial_conv"](x)
    skip = net["initial_skip"]["conv"](x)
    for unit in net["residual_units"]:
        if "conv" in unit:
            skip = skip + unit["conv"](x)
        else:
            y = unit["conv1"](act(unit["batchnorm1"](x)))
            x = x + unit["conv2"](act(unit["batchnorm2"](y)))
    return torch.softmax(net["final_conv"](skip[:, :, flank // 2 : -flank // 2]), dim=1)


def saved(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def state() -> OrderedDict:
    return toy().state_dict()


def refusal(content: bytes) -> str:
    with pytest.raises(InputError) as caught:
        read_tensors(content, where="x.pt")
    assert str(caught.value).startswith("x.pt: ")
    return str(caught.value)


def network_refusal(state) -> str:
    with pytest.raises(InputError) as caught:
        importer.read_network(read_tensors(saved(state), where="x.pt"), where="x.pt")
    return str(caught.value)


@pytest.mark.parametrize("flank", [80, 400])
def test_the_network_is_the_one_in_the_file(flank):
    """Judge: PyTorch's own layers under OpenSpliceAI's names."""
    net = toy(flank, seed=flank)
    member = importer.read_network(read_tensors(saved(net.state_dict()), where="x"), where="x")
    assert member.params.norm_epsilon == 1e-5
    x = torch.randn(2, 4, flank + 90, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        judge, found = expected(net, x, flank), member(x)["splice"]
    assert found.shape == judge.shape == (2, 3, 90)
    assert (found - judge).abs().max() < 1e-5
    assert judge.std(dim=(0, 2)).min() > 1e-3


@pytest.mark.parametrize("flank", sorted(SCHEDULES))
def test_every_published_size_is_recognised(flank):
    member = importer.read_network(read_tensors(saved(toy(flank).state_dict()), where="x"), where="x")
    assert member.params.blocks == spliceai_params(flank).blocks


def test_the_folder_and_what_it_records(tmp_path):
    place = tmp_path / "models" / "80nt"
    place.mkdir(parents=True)
    for number in (14, 10):
        torch.save(toy(seed=number).state_dict(), place / f"model_80nt_rs{number}.pt")
    found = importer.find(place)
    assert found.licence == importer.LICENCE
    infos = [importer.convert(found, tmp_path / name) for name in ("one", "two")]
    assert infos[0].digest == infos[1].digest
    assert (infos[0].name, infos[0].members, infos[0].score_tag) == ("openspliceai-80nt", 2, "")
    files = infos[0].extra["imported"]["files"]
    assert [entry["file"] for entry in files] == ["model_80nt_rs10.pt", "model_80nt_rs14.pt"]
    x = torch.randn(1, 4, 130, generator=torch.Generator().manual_seed(2))
    for member, number in zip(load_members(infos[0]), (10, 14), strict=True):
        with torch.inference_mode():
            assert (member(x)["splice"] - expected(toy(seed=number), x, 80)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("place", "words", "name"),
    [
        ("LICENSE", "GNU GENERAL PUBLIC LICENSE\n   Version 3", "GPL-3.0"),
        ("LICENSE", "My terms", "My terms"),
        ("../LICENSE", "My terms", "GPL-3.0"),
    ],
)
def test_the_licence(tmp_path, place, words, name):
    folder = tmp_path / "nets"
    folder.mkdir()
    torch.save(toy().state_dict(), folder / "a.pt")
    (folder / place).write_text(words)
    assert importer.find(folder).licence.name == name


@pytest.mark.parametrize(
    "names",
    [
        ["model_0.pt", "model_1.pt"],
        ["model_best.pt", "model_10000nt_rs10.pt"],
        ["model_10000nt_rs10.pt", "rs10_epoch3.pt"],
        ["a.pt", "Checkpoint-7.pt"],
    ],
)
def test_stages_of_a_training_make_no_ensemble(tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="is by its name a stage of a training") as caught:
        importer.find(tmp_path)
    assert all(name in str(caught.value) for name in names)
    assert "into a folder of its own" in str(caught.value.fix)


@pytest.mark.parametrize(
    "names",
    [
        ["model_best.pt"],
        ["model_7.pt"],
        ["model_10000nt_rs10.pt", "model_10000nt_rs11.pt"],
        ["bestow_1.pt", "clast.pt", "model_1b.pt"],
    ],
)
def test_one_network_or_an_ensemble_is_taken(tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in importer.find(tmp_path).files] == names


def test_more_networks_than_a_model_may_have_are_refused_before_they_are_read(tmp_path):
    for number in range(101):
        (tmp_path / f"rs{number}.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"101 networks \(rs0\.pt, rs1\.pt, .* and 89 more\), allowed are 100"):
        importer.find(tmp_path)


def test_folders_without_networks(tmp_path):
    with pytest.raises(InputError, match=r"holds no \.pt files"):
        importer.find(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        importer.find(tmp_path / "absent")


def test_another_network_is_refused_and_the_tensor_named(state):
    without = {name: tensor for name, tensor in state.items() if name != "residual_units.2.conv1.bias"}
    assert "tensor 'residual_units.2.conv1.bias' is missing" in network_refusal(without)
    film = {**state, "film.weight": torch.zeros(3)}
    assert "tensor 'film.weight' is no part of OpenSpliceAI's network" in network_refusal(film)
    wide = {**state, "residual_units.0.conv1.weight": torch.zeros(32, 32, 21)}
    assert "is 32 x 32 x 21, a network of this size has 32 x 32 x 11" in network_refusal(wide)
    hollow = {**state, "final_conv.bias": torch.full((3,), torch.inf)}
    assert "tensor 'final_conv.bias' holds values that are no finite numbers" in network_refusal(hollow)
    short = {name: tensor for name, tensor in state.items() if ".4." not in name}
    assert "4 residual and skip units; OpenSpliceAI's sizes have 5, 10, 15, 20" in network_refusal(short)
    assert "0 residual and skip units" in network_refusal({"a": torch.zeros(1)})


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.arange(3), c=torch.tensor(2.5)),
        {"half": torch.ones(2).half(), "double": torch.zeros(2, 2, dtype=torch.float64), "none": torch.zeros(0, 3)},
        {"parameter": nn.Parameter(torch.ones(2))},
        {"view": torch.arange(10.0)[4:8], "shared": torch.arange(10.0)},
    ],
)
def test_tensors_read_as_torch_reads_them(value):
    found = read_tensors(saved(value), where="x")
    judge = torch.load(io.BytesIO(saved(value)), weights_only=True)
    assert list(found) == list(judge)
    for name, tensor in judge.items():
        assert torch.equal(torch.from_numpy(found[name].copy()), tensor.detach())


class Call:
    """Pickles as a call of whatever it is given."""

    def __init__(self, function, *arguments) -> None:
        self.pair = (function, arguments)

    def __reduce__(self):
        return self.pair


@pytest.mark.parametrize("wrap", [lambda call: call, lambda call: {"a": torch.ones(2), "b": call}, lambda call: [call]])
def test_a_file_that_would_run_a_command_runs_nothing(tmp_path, wrap):
    marker = tmp_path / "ran"
    content = saved(wrap(Call(os.system, f"touch {marker}")))
    assert "data.pkl asks to call 'posix.system', which no state dict needs" in refusal(content)
    assert not marker.exists()
    torch.load(io.BytesIO(content), weights_only=False)
    assert marker.exists()  # the file is what it is meant to be


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([torch.ones(1)], "holds no state dict"),
        ({}, "holds no state dict"),
        (torch.ones(1), "holds no state dict"),
        ({"epoch": 3}, "'epoch' is no tensor: this is no plain state dict"),
        ({"state_dict": {"a": torch.ones(1)}}, "'state_dict' is no tensor"),
        ({1: torch.ones(1)}, "data.pkl holds int where a state dict has str"),
        ({"a": torch.ones(2, 3).T}, "a tensor of shape [3, 2] is not stored in plain order"),
        ({"a": torch.ones(1).expand(1 << 20)}, "is not stored in plain order"),
        ({"a": torch.ones(2, dtype=torch.bfloat16)}, "numbers of type 'torch.BFloat16Storage' are not read"),
        ({"a": Call(torch.nn.Linear, 2, 2)}, "asks to call 'torch.nn.modules.linear.Linear'"),
        ({"a": Call(eval, "1")}, "eval', which no state dict needs"),
        ({"a": {1, 2}}, "set'"),
    ],
)
def test_more_than_tensors_is_refused(value, sentence):
    assert sentence in refusal(saved(value))


class Keyed:
    """Stands for a storage; `archive` writes it as torch does."""

    def __init__(self, key="0", length=4, kind=torch.FloatStorage) -> None:
        self.reference = ("storage", kind, key, "cpu", length)


class _Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.reference if isinstance(value, Keyed) else None


def tensor(storage=None, offset=0, shape=(4,), strides=(1,)):
    arguments = (storage or Keyed(), offset, shape, strides, False, OrderedDict())
    return Call(torch._utils._rebuild_tensor_v2, *arguments)


def archive(value, *, data=bytes(16), compress=zipfile.ZIP_STORED, more=()) -> bytes:
    """A file as torch.save writes it, with any description over any bytes; `value` may be a pickle itself."""
    text = io.BytesIO()
    if isinstance(value, bytes):
        text.write(value)
    else:
        _Pickler(text, protocol=2).dump(value)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as file:
        for name, content in (("a/data.pkl", text.getvalue()), ("a/data/0", data), *more):
            file.writestr(zipfile.ZipInfo(name), content, compress)
    return buffer.getvalue()


def test_the_crafted_archive_is_a_good_one():
    data = np.arange(4, dtype="<f4").tobytes()
    assert read_tensors(archive({"a": tensor()}, data=data), where="x")["a"].tolist() == [0, 1, 2, 3]
    swapped = archive({"a": tensor()}, data=np.arange(4, dtype=">f4").tobytes(), more=[("a/byteorder", b"big")])
    assert read_tensors(swapped, where="x")["a"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (tensor(offset=1), "reaches beyond its storage of 4 numbers"),
        (tensor(shape=(5,)), "reaches beyond its storage"),
        (tensor(shape=(1 << 20, 1 << 19), strides=(1 << 19, 1)), "reaches beyond its storage"),
        (tensor(shape=(1 << 62,)), "a size in data.pkl is negative or beyond any file"),
        (tensor(offset=-1), "negative"),
        (tensor(shape=(-4,)), "negative"),
        (tensor(shape=(2, 2), strides=(0, 0)), "not stored in plain order"),
        (tensor(shape=(1,) * 40, strides=(1,) * 40), "40 dimensions"),
        (tensor(shape=(4.0,)), "holds float where a state dict has int"),
        (tensor(shape=(True,)), "holds bool where a state dict has int"),
        (
            tensor(Keyed(length=1 << 38), shape=(1 << 38,)),
            "storage '0' has 16 bytes, its tensors say 274877906944 numbers",
        ),
        (tensor(Keyed(length=3), shape=(3,)), "storage '0' has 16 bytes"),
        (tensor(Keyed(key="1")), "'data/1' is missing in the archive"),
        (tensor(Keyed(key="../../x")), "'data/../../x' is missing in the archive"),
        (tensor(Keyed(kind=os.system)), "numbers of type 'posix.system' are not read"),
    ],
)
def test_sizes_are_compared_with_the_bytes_that_are_there(made, sentence):
    assert sentence in refusal(archive({"a": made}))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "does not read as a torch file"),
        (pickle.dumps({"a": 1}), "does not read as a torch file: File is not a zip file"),
        (archive(b""), "data.pkl is damaged"),
        (archive(b"\x80\x02"), "data.pkl is damaged"),
        (archive(b"."), "takes what is not there"),
        (archive(b"0."), "asks for step POP"),
        (archive(b"R."), "takes what is not there"),
        (archive(b"t."), "takes what is not there"),
        (archive(b"(R."), "takes what is not there"),
        (archive(b"h\x07."), "takes what is not there"),
        (archive(b"}(K\x01u."), "takes what is not there"),
        (archive(b"cposix\nsystem\nU\x02ls\x85R."), "asks for step SHORT_BINSTRING"),
        (archive(b"iposix\nsystem\n."), "asks for step INST"),
        (archive(b"\x8c\x05posix\x8c\x06system\x93."), "asks for step STACK_GLOBAL"),
        (archive(b"L" + b"9" * 100_000 + b"L\n."), "data.pkl is damaged"),
        (archive(pickle.dumps([[]] * 9, protocol=4)), "asks for step"),
        (archive({"a": tensor()}, compress=zipfile.ZIP_DEFLATED), "is compressed or encrypted"),
        (archive({"a": tensor()}, more=[("b/data.pkl", b"")]), "holds 2 files data.pkl, expected one"),
        (archive({"a": tensor()}, more=[("a/byteorder", b"pdp")]), "byte order b'pdp' is unknown"),
        (archive(bytes(5 << 20)), "data.pkl has more than 4194304 bytes"),
    ],
)
def test_a_file_that_is_none(content, sentence):
    assert sentence in refusal(content)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice():
    assert "a name stands twice" in refusal(archive({"a": tensor()}, more=[("a/data/0", bytes(16))]))


def test_an_old_file_is_refused_too(state):
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    assert "does not read as a torch file: File is not a zip file; give a state dict" in refusal(buffer.getvalue())


SMALL = saved({"a": torch.arange(5.0), "b": torch.ones(2, 2)})


@given(at=st.integers(0, len(SMALL) - 1), flip=st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_is_refused_or_changes_no_number(at, flip):
    """The archive's checksums cover every stored byte; what they leave out is padding, dates and names."""
    content = bytearray(SMALL)
    content[at] ^= flip
    try:
        found = read_tensors(bytes(content), where="x")
    except InputError:
        return
    assert {name: array.tolist() for name, array in found.items()} == {"a": [0, 1, 2, 3, 4], "b": [[1, 1], [1, 1]]}


@given(st.integers(0, len(SMALL) - 1))
@settings(max_examples=100, deadline=None)
def test_a_cut_file_is_refused(length):
    refusal(SMALL[:length])


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_program_is_more_than_a_refusal(program):
    refusal(archive(b"\x80\x02" + program))


def test_a_missing_file_between_the_steps(tmp_path: Path):
    torch.save(toy().state_dict(), tmp_path / "a.pt")
    found = importer.find(tmp_path)
    (tmp_path / "a.pt").unlink()
    with pytest.raises(InputError, match=r"a\.pt: cannot be read: No such file"):
        importer.convert(found, tmp_path / "out")

"""SpliceAI's Keras files become the same network, and files that are anything else are refused by layer."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from engine.encoders.one_hot import OneHot, OneHotParams
from engine.errors import InputError
from engine.genome.windows import tokens_from_text
from engine.models import _import_spliceai as importer
from engine.models import _keras_layers
from engine.models._folder import load_members
from engine.models._info import network_digest, open_model
from engine.models._keras_layers import read_layers
from engine.models.dilated_conv import spliceai_params
from tests.toys import keras

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def install(tmp_path_factory) -> Path:
    return keras.write_install(tmp_path_factory.mktemp("site-packages"))


def tokens(length: int, seed: int = 0) -> torch.Tensor:
    """(1, L) with N in it, at the ends too."""
    text = "".join(np.random.default_rng(seed).choice(list("ACGTN"), length, p=[0.24, 0.24, 0.24, 0.24, 0.04]))
    return torch.from_numpy(tokens_from_text("NN" + text[2:-2] + "NN"))[None]


def one_hot(tokens_1L: torch.Tensor) -> np.ndarray:
    return np.vstack([np.eye(4), np.zeros((1, 4))])[tokens_1L[0].numpy()]


def ours(network: torch.nn.Module, tokens_1L: torch.Tensor) -> np.ndarray:
    """(L - context, 3)"""
    with torch.inference_mode():
        return network(OneHot(OneHotParams()).tensor(tokens_1L))["splice"][0].T.numpy()


def read(path: Path):
    return importer.read_network(read_layers(path.read_bytes(), where=str(path)), where=str(path))


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("flank", "settings", "config"),
    [
        (80, {"seed": 1}, True),
        (80, {"seed": 2, "first": 97}, True),
        (80, {"seed": 3, "first": 0, "epsilon": 0.01}, True),
        (80, {"seed": 4, "first": 6}, False),
        (400, {"seed": 5}, True),
    ],
)
def test_the_network_is_the_one_in_the_file(tmp_path, flank, settings, config):
    """Judge: the layers applied in plain numpy, padded and cropped as SpliceAI does, from the file's own arrays."""
    path = keras.write(tmp_path / "x.h5", keras.spliceai_layers(flank, **settings), config=config)
    x = tokens(flank + 150, seed=flank)
    expected = keras.forward(keras.read_weights(path), one_hot(x), flank=flank, epsilon=settings.get("epsilon", 0.001))
    found = ours(read(path), x)
    assert found.shape == expected.shape == (150, 3)
    assert np.abs(found - expected).max() < 1e-5
    assert expected.std(axis=0).min() > 1e-3  # a network that says the same everywhere would prove nothing


def test_layers_follow_their_numbers_whatever_the_order_in_the_file(tmp_path):
    """conv1d_9 comes before conv1d_10, though text sorts them the other way round."""
    layers = keras.spliceai_layers(80, first=6)
    straight = keras.write(tmp_path / "a.h5", layers)
    shuffled = keras.write(tmp_path / "b.h5", sorted(layers, key=lambda layer: layer.name))
    for one, other in zip(read(straight).state_dict().values(), read(shuffled).state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("flank", sorted(keras.SCHEDULES))
def test_every_published_size_is_recognised(tmp_path, flank):
    assert read(keras.write(tmp_path / "x.h5", keras.spliceai_layers(flank))).params == spliceai_params(flank)


def test_the_folder_and_what_it_records(install, tmp_path):
    info = importer.convert(importer.find(install), tmp_path / "model")
    assert (info.name, info.version, info.members, info.context_bp) == ("spliceai-80nt", "1.3.1", 5, 80)
    assert info.score_tag == "SpliceAI"
    assert info.encoder == {"name": "one_hot", "params": {}}
    assert info.heads["splice"].channels == ("none", "acceptor", "donor")
    assert info.licence == "CC BY-NC 4.0"
    assert info.extra["licence"] == {
        "name": "CC BY-NC 4.0",
        "accepted": True,
        "text": "CC BY NC 4.0, toy words\nfor the tests",
    }
    recorded = info.extra["imported"]["files"]
    models = install / "spliceai" / "models"
    assert [entry["file"] for entry in recorded] == [f"spliceai{number}.h5" for number in range(1, 6)]
    for entry in recorded:
        content = (models / entry["file"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    card = (tmp_path / "model" / "README.md").read_text()
    assert "CC BY-NC 4.0" in card and "Research use only" in card
    assert str(install) not in card + (tmp_path / "model" / "replisome.json").read_text()
    x = tokens(120)
    for number, member in enumerate(load_members(info), 1):
        expected = keras.forward(keras.read_weights(models / f"spliceai{number}.h5"), one_hot(x), flank=80)
        assert np.abs(ours(member, x) - expected).max() < 1e-5


def test_the_same_bytes_each_time_from_each_folder_of_the_install(install, tmp_path):
    folders = (install, install / "spliceai", install / "spliceai" / "models")
    infos = [importer.convert(importer.find(folder), tmp_path / str(at)) for at, folder in enumerate(folders)]
    first, *others = [{path.name: path.read_bytes() for path in Path(info.path).iterdir()} for info in infos]
    assert all(other == first for other in others)
    assert len({info.digest for info in infos}) == len({network_digest(info) for info in infos}) == 1
    assert open_model(infos[0].path) == infos[0]


def test_other_names_are_taken_in_the_order_of_their_numbers(tmp_path):
    for number in (2, 10, 1):
        keras.write(tmp_path / f"SpliceAI80_c{number}.h5", keras.spliceai_layers(80, seed=number))
    assert [path.stem[12:] for path in importer.find(tmp_path).files] == ["1", "2", "10"]
    assert importer.find(tmp_path).licence == importer.LICENCE
    assert "CC BY-NC 4.0" in importer.LICENCE.text


def test_an_install_with_a_network_missing_is_refused(tmp_path):
    keras.write_install(tmp_path)
    (tmp_path / "spliceai" / "models" / "spliceai3.h5").unlink()
    with pytest.raises(InputError, match=r"spliceai3\.h5 is missing; install SpliceAI again"):
        importer.find(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        importer.find(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.h5 files"):
        importer.find(tmp_path / "empty")


def test_networks_of_two_sizes_do_not_make_one_model(tmp_path):
    keras.write(tmp_path / "a1.h5", keras.spliceai_layers(80))
    keras.write(tmp_path / "a2.h5", keras.spliceai_layers(400))
    with pytest.raises(InputError, match=r"a2\.h5: another size or setting than a1\.h5"):
        importer.convert(importer.find(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_output_must_be_free(install, tmp_path):
    found = importer.find(install)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        importer.convert(found, tmp_path / "full")
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert importer.convert(found, tmp_path / "empty").members == 5


INFO = "spliceai-1.3.1.dist-info"


@pytest.mark.parametrize(
    ("place", "words", "name", "text"),
    [
        ("spliceai/models/LICENSE", "CC BY NC 4.0\nmore", "CC BY-NC 4.0", "CC BY NC 4.0\nmore"),
        ("spliceai/models/LICENSE.txt", "\nOther terms\nmore", "Other terms", "\nOther terms\nmore"),
        ("spliceai/LICENSE", "GPLv3\n\nmodels: CC BY NC 4.0\n\nend", "CC BY-NC 4.0", "models: CC BY NC 4.0"),
        ("spliceai/LICENSE", "GPLv3 for the code", "CC BY-NC 4.0", None),
        (f"{INFO}/METADATA", "License: GPLv3\n\nmodels: CC BY NC 4.0\n", "CC BY-NC 4.0", "models: CC BY NC 4.0"),
        (f"{INFO}/METADATA", "License: GPLv3\n\nA tool\n", "CC BY-NC 4.0", None),
        (f"{INFO}/licenses/LICENSE", "NonCommercial 4.0", "CC BY-NC 4.0", "NonCommercial 4.0"),
    ],
)
def test_where_the_licence_of_the_weights_is_read(tmp_path, place, words, name, text):
    """A licence of the code alone says nothing of the weights."""
    keras.write_install(tmp_path, licence=None)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(words)
    licence = importer.find(tmp_path).licence
    assert licence.name == name
    assert (licence.text, licence.path) == ((text, str(tmp_path / place)) if text else (importer.LICENCE.text, ""))


def changed(tmp_path: Path, change, **settings) -> Path:
    layers = keras.spliceai_layers(80)
    change({layer.name: layer for layer in layers}, layers)
    return keras.write(tmp_path / "x.h5", layers, **settings)


def config(name: str, **values):
    return lambda named, layers: named[name].config.update(values)


def rewire(name: str, *inputs: str):
    return lambda named, layers: setattr(named[name], "inputs", list(inputs))


def weight(name: str, plain: str, *shape: int, fill: float = 0.0):
    return lambda named, layers: named[name].weights.update({plain: np.full(shape, fill)})


def another(name: str, kind: str):
    return lambda named, layers: layers.append(keras.ToyLayer(name, kind, ["add_1"]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (another("dense_1", "Dense"), "'dense_1' of kind 'Dense' is no part of SpliceAI's network"),
        (another("lambda_7", "Lambda"), "'lambda_7' of kind 'Lambda' is no part"),
        (another("add_9", "Add"), "6 layers of kind Add, SpliceAI's network of this size has 5"),
        (lambda _, layers: layers.pop(), "11 convolutions and 8 normalisations; SpliceAI's sizes have 12 and 8"),
        (config("conv1d_5", dilation_rate=[2]), "'conv1d_5': dilation_rate is [2], SpliceAI's network has 1"),
        (config("conv1d_5", padding="causal"), "'conv1d_5': padding is 'causal', SpliceAI's network has 'same'"),
        (
            config("conv1d_12", activation="sigmoid"),
            "'conv1d_12': activation is 'sigmoid', SpliceAI's network has 'sof",
        ),
        (config("conv1d_3", activation="relu"), "'conv1d_3': activation is 'relu', SpliceAI's network has 'linear'"),
        (
            config("activation_8", activation="tanh"),
            "'activation_8': activation is 'tanh', SpliceAI's network has 'relu'",
        ),
        (config("cropping1d_1", cropping=[40, 39]), "'cropping1d_1': cropping is [40, 39], SpliceAI's network has 40"),
        (config("batch_normalization_2", epsilon=0.002), "'batch_normalization_2': epsilon 0.002, expected one number"),
        (config("batch_normalization_1", epsilon="big"), "'batch_normalization_1': epsilon 'big', expected one number"),
        (config("batch_normalization_1", axis=1), "'batch_normalization_1': axis is 1"),
        (
            rewire("add_2", "conv1d_6", "conv1d_1"),
            "'add_2' reads ['conv1d_6', 'conv1d_1'], SpliceAI's reads ['conv1d_6'",
        ),
        (rewire("conv1d_2", "add_1"), "'conv1d_2' reads ['add_1'], SpliceAI's reads ['conv1d_1']"),
        (rewire("cropping1d_1", "add_4"), "'cropping1d_1' reads ['add_4'], SpliceAI's reads ['add_5']"),
        (
            weight("conv1d_4", "kernel", 9, 32, 32),
            "'conv1d_4': kernel is 32 x 32 x 9, a network of this size has 32 x 32 x",
        ),
        (weight("conv1d_4", "kernel", 32, 32), "'conv1d_4': kernel has 2 dimensions, not 3"),
        (weight("conv1d_12", "bias", 4), "'conv1d_12': bias is 4, a network of this size has 3"),
        (weight("batch_normalization_3", "gamma", 32, fill=np.nan), "gamma holds values that are no finite numbers"),
        (weight("conv1d_7", "bias", 32, fill=1e39), "'conv1d_7': bias holds values that are no finite numbers"),
        (weight("conv1d_7", "extra", 1), "'conv1d_7' holds ['bias', 'extra', 'kernel'], expected ['bias', 'kernel']"),
        (weight("activation_1", "alpha", 1), "'activation_1' holds ['alpha'], expected []"),
        (lambda named, _: named["conv1d_9"].weights.pop("bias"), "'conv1d_9' holds ['kernel'], expected ['bias', 'ker"),
    ],
)
def test_another_network_is_refused_and_the_layer_named(tmp_path, change, sentence):
    assert sentence in refusal(changed(tmp_path, change))


def test_without_a_configuration_an_unknown_layer_is_still_named(tmp_path):
    dense = keras.ToyLayer("dense_3", "Dense", [], weights={"kernel": np.zeros((3, 3), "f4")})
    path = changed(tmp_path, lambda _, layers: layers.append(dense), config=False)
    assert "'dense_3' of kind 'dense' is no part of SpliceAI's network" in refusal(path)


def replaced(tmp_path: Path, make) -> Path:
    """A good file whose first kernel was replaced by `make(group, name)`."""
    path = keras.write(tmp_path / "x.h5", keras.spliceai_layers(80))
    with h5py.File(path, "r+") as file:
        group = file["model_weights/conv1d_1/conv1d_1"]
        del group["kernel:0"]
        make(group, "kernel:0")
    return path


def external_storage(group, name):
    group.create_dataset(name, (1, 4, 32), "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual(group, name):
    layout = h5py.VirtualLayout((1, 4, 32), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (1, 4, 32))
    group.create_virtual_dataset(name, layout)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda group, name: None, "is missing, or a link to somewhere else"),
        (lambda group, name: group.__setitem__(name, h5py.ExternalLink("/x", "/x")), "a link to somewhere else"),
        (lambda group, name: group.__setitem__(name, h5py.SoftLink("/model_weights")), "a link to somewhere else"),
        (external_storage, "no plain float array"),
        (virtual, "no plain float array"),
        (lambda group, name: group.create_dataset(name, (1 << 20, 1 << 12), "f4"), "no plain float array"),
        (lambda group, name: group.create_dataset(name, (1, 4, 32), "f4", chunks=(1, 4, 32)), "no plain float array"),
        (lambda group, name: group.create_dataset(name, (4,), h5py.string_dtype()), "no plain float array"),
        (lambda group, name: group.create_group(name), "does not read as a Keras file"),
        # Never written, so of no size in the file.
        (
            lambda group, name: group.create_dataset(name, (1 << 20, 4), "f8"),
            "0 bytes are stored of an array of 33554432",
        ),
    ],
)
def test_what_is_no_plain_array_in_the_file_is_not_read(tmp_path, make, sentence):
    assert sentence in refusal(replaced(tmp_path, make))


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("model_config", b"{", "does not read as a Keras file"),
        ("model_config", b"[" * 100_000, "does not read as a Keras file"),
        ("model_config", b"[]", "does not read as a Keras file"),
        ("model_config", b'{"class_name": "Sequential"}', "a Keras 'Sequential', expected a functional model"),
        ("model_config", b'{"class_name": "Model", "config": {"layers": []}}', ""),
        ("model_config", 7, "'model_config' is no text"),
        (
            "model_config",
            b'{"class_name": "Model", "config": {"layers": [{"name": "x\\u001b", "config": []}]}}',
            "layer 'x\\x1b' has no settings",
        ),
    ],
)
def test_a_configuration_that_is_none(tmp_path, name, value, sentence):
    path = keras.write(tmp_path / "x.h5", keras.spliceai_layers(80))
    with h5py.File(path, "r+") as file:
        del file.attrs[name]
        # Long texts are no attributes in HDF5's old format; a text of any length in the new one.
        file.attrs.create(name, value, dtype=h5py.string_dtype() if isinstance(value, bytes) else None)
    if sentence:
        assert sentence in refusal(path)
    else:
        assert read(path).params == spliceai_params(80)


@pytest.mark.parametrize("is_fixed", [True, False])
def test_names_of_one_length_and_of_any(tmp_path, is_fixed):
    """Keras 2 wrote the one, and does the other under later h5py."""
    layers = keras.spliceai_layers(80)
    path = keras.write(tmp_path / "x.h5", layers)
    names = [layer.name for layer in layers]
    with h5py.File(path, "r+") as file:
        weights = file["model_weights"]
        weights.attrs["layer_names"] = np.array(names, dtype="S30") if is_fixed else names
        for name in names:
            own = weights[name].attrs["weight_names"]
            weights[name].attrs["weight_names"] = own if is_fixed else [text.decode() for text in own]
    assert read(path).params == spliceai_params(80)


def many_arrays_of_one(file):
    """Ten thousand names of an array that the file holds once."""
    group = file["model_weights/conv1d_1"]
    data = group.create_dataset("k0", data=np.zeros(1000, "f8"))
    for number in range(1, 90):
        group[f"k{number}"] = data
    group.attrs["weight_names"] = np.array([f"k{number}".encode() for number in range(90)])


def many_layers_of_one(file):
    """A thousand names of a layer that the file holds once; without a configuration to count them."""
    del file.attrs["model_config"]
    weights = file["model_weights"]
    names = [f"conv1d_{number}" for number in range(2, 1500)]
    for name in names:
        if name not in weights:
            weights[name] = weights["conv1d_1"]
    weights.attrs["layer_names"] = np.array([name.encode() for name in names])


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (many_arrays_of_one, "the file lists more than it has bytes"),
        (many_layers_of_one, "the file lists more than it has bytes"),
        (
            lambda file: file["model_weights"].attrs.create("layer_names", np.arange(3000).astype("S8")),
            "'layer_names' is no list of at most 2000 names",
        ),
        (
            lambda file: file["model_weights"].attrs.create("layer_names", np.array([b"x" * 1001])),
            "'layer_names' is no list of at most 2000 names of ordinary length",
        ),
        (
            lambda file: file["model_weights"].attrs.create("layer_names", np.array([1.0])),
            "'layer_names' is no list of at most 2000 names of ordinary length",
        ),
        (
            lambda file: file["model_weights/conv1d_1"].attrs.create("weight_names", np.arange(101).astype("S8")),
            "'weight_names' is no list of at most 100 names",
        ),
    ],
)
def test_a_small_file_that_unfolds_to_much_is_refused_unread(tmp_path, harm, sentence):
    path = keras.write(tmp_path / "x.h5", keras.spliceai_layers(80))
    with h5py.File(path, "r+") as file:
        harm(file)
    assert sentence in refusal(path)


def test_long_names_of_any_length_are_refused_unread(tmp_path, monkeypatch):
    path = keras.write(tmp_path / "x.h5", keras.spliceai_layers(80))
    monkeypatch.setattr(_keras_layers, "MAX_UNSIZED_BYTES", 2 * path.stat().st_size)
    with h5py.File(path, "r+") as file:
        file["model_weights/conv1d_1"].attrs["weight_names"] = ["conv1d_1/kernel:0", "conv1d_1/bias:0", "x"]
    assert "'weight_names' is no list of at most 100 names of ordinary length" in refusal(path)


def test_layers_must_be_listed(tmp_path):
    path = keras.write(tmp_path / "x.h5", keras.spliceai_layers(80))
    with h5py.File(path, "r+") as file:
        file["model_weights"].attrs["layer_names"] = np.array([b"conv1d_1", b"conv1d_1"])
    assert "in only one of weights" in refusal(path) or "each once" in refusal(path)
    with h5py.File(path, "r+") as file:
        del file["model_weights"].attrs["layer_names"]
    assert "'layer_names' is missing" in refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_cut_file_is_refused(tmp_path, share):
    path = keras.write(tmp_path / "x.h5", keras.spliceai_layers(80))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "does not read as a Keras file" in refusal(path)


def test_files_that_cannot_be_read_or_are_too_large(install, tmp_path, monkeypatch):
    found = importer.find(install)
    monkeypatch.setattr("engine.models._importing.MAX_FILE_BYTES", 1000)
    with pytest.raises(InputError, match=r"spliceai1\.h5: more than 0 MiB"):
        importer.convert(found, tmp_path / "out")
    if os.geteuid():
        (install / "spliceai" / "models" / "spliceai1.h5").chmod(0)
        with pytest.raises(InputError, match="cannot be read"):
            importer.convert(found, tmp_path / "out")

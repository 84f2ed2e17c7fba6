import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import InputError
from engine.models import _info
from engine.models._info import HeadInfo, canonical_json, open_model, spec_of, zoo_names
from tests.toys.models import base_counter

ROOT = Path(_info.__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return base_counter(tmp_path_factory.mktemp("models") / "counter", members=2)


@pytest.fixture
def folder(made, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made.path, tmp_path / "counter"))


def rewrite(folder, change):
    """Change the parsed replisome.json in place, or replace its text."""
    place = folder / "replisome.json"
    spec = json.loads(place.read_text())
    change(spec)
    place.write_text(json.dumps(spec))


def refused(folder, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        open_model(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_opens_with_what_was_saved(made):
    info = open_model(made.path)
    assert info == made
    assert (info.architecture, info.members, info.context_bp) == ("dilated_conv", 2, 4)
    assert info.heads["count"].pairs == ((0, 3), (1, 2))
    assert [name for name, _, _ in info.files] == ["member-00.safetensors", "member-01.safetensors"]
    assert pickle.loads(pickle.dumps(info)) == info
    assert json.loads(Path(made.path, "replisome.json").read_text()) == json.loads(canonical_json(spec_of(info)))


def test_digest_covers_spec_and_tensors_and_nothing_else(made, folder):
    (folder / "README.md").write_text("another card")
    assert open_model(folder).digest == made.digest
    place = folder / "replisome.json"
    place.write_text(json.dumps(json.loads(place.read_text()), indent=7, sort_keys=True))
    assert open_model(folder).digest == made.digest
    rewrite(folder, lambda spec: spec["metrics"].update(pearson=0.5))
    assert open_model(folder).digest != made.digest


def test_digest_differs_with_the_weights(made, tmp_path):
    assert base_counter(tmp_path / "again", members=2).digest == made.digest
    assert base_counter(tmp_path / "other", members=1).digest != made.digest


def test_opening_needs_neither_torch_nor_the_rest_of_the_house(made):
    code = (
        "import sys\n"
        "for name in ('torch', 'pydantic', 'polars', 'pysam', 'ray', 'google_crc32c'): sys.modules[name] = None\n"
        "from engine.models._info import open_model\n"
        f"print(open_model({made.path!r}).digest)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == made.digest


def test_models_and_scoring_need_torch_and_numpy_alone():
    code = (
        "import sys\n"
        "for name in ('pydantic', 'polars', 'pysam', 'ray', 'google_crc32c'): sys.modules[name] = None\n"
        "import engine.scoring._predictor, engine.models.splice_grammar, engine.models._folder\n"
        "import engine.encoders.tokens, engine.encoders.one_hot"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("byte", [0, 7, 8, 20, -1])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_in_a_member_is_seen(folder, byte, bit):
    place = folder / "member-01.safetensors"
    data = bytearray(place.read_bytes())
    data[byte] ^= 1 << bit
    place.write_bytes(data)
    refused(folder, "member-01.safetensors: ")


def test_a_changed_weight_names_both_digests(folder):
    place = folder / "member-00.safetensors"
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(data)
    refused(folder, r"member-00.safetensors: sha256 \w{12}\.\.\., replisome.json records \w{12}")


def test_files_missing_left_over_or_cut(folder):
    place = folder / "member-01.safetensors"
    data = place.read_bytes()
    place.write_bytes(data[:-4])
    refused(folder, f"{len(data) - 4} bytes, replisome.json records {len(data)}")
    place.unlink()
    refused(folder, "member-01.safetensors: the member file is missing")
    place.write_bytes(data)
    (folder / "member-02.safetensors").write_bytes(data)
    refused(folder, "member-02.safetensors is not listed in replisome.json")


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", "weights.h5", "a.pkl"])
def test_pickles_have_no_place(folder, tmp_path, name):
    (folder / name).write_bytes(b"")
    refused(folder, f"{name} can run code when read and has no place in a model folder")
    with pytest.raises(InputError, match=r"never opened; convert it once: read its tensors with an importer"):
        open_model(folder / name)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / name).write_bytes(b"")
    refused(foreign, f"the folder holds {name} and no replisome.json; convert it once.*importer")


def test_a_hugging_face_folder_is_told_apart(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    refused(tmp_path, r"this is a Hugging Face folder \(config.json, no replisome.json\)")


def test_places_that_are_no_model(tmp_path):
    refused(tmp_path, "the folder holds no replisome.json")
    (tmp_path / "model.zip").write_bytes(b"")
    refused(tmp_path / "model.zip", "a model is a folder, and this is a file")
    refused(tmp_path / "absent", "no model of this name and no such folder")


@pytest.mark.parametrize("place", ["", "models", "spliceai/models"])
def test_an_install_of_spliceai_is_shown_the_way_in(tmp_path, place):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "spliceai1.h5").write_bytes(b"")
    refused(tmp_path, rf"an install of SpliceAI .*; replisome models import spliceai --from {tmp_path} -o MODEL")


def test_names_of_the_zoo(tmp_path, monkeypatch, made):
    monkeypatch.setattr(_info, "ZOO", tmp_path)
    assert zoo_names() == []
    shutil.copytree(made.path, tmp_path / "splice-mini")
    (tmp_path / "unfinished").mkdir()
    assert zoo_names() == ["splice-mini"]
    assert open_model("splice-mini").digest == made.digest
    with pytest.raises(InputError, match=r"did you mean 'splice-mini'\? models that ship: splice-mini"):
        open_model("splice-mni")
    # A path is never taken for a name.
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(InputError, match=r"^\./splice-mini: no model of this name"):
        open_model("./splice-mini")


def test_the_zoo_opens():
    for name in zoo_names():
        assert open_model(name).licence


@pytest.mark.parametrize(
    "name", ["../counter/member-00.safetensors", "/etc/passwd", "member-00.pt", "member-1.safetensors", "", 7, None]
)
def test_member_names_cannot_leave_the_folder(folder, name):
    rewrite(folder, lambda spec: spec["members"][0].update(file=name))
    refused(folder, "member 0 must be named member-00.safetensors, found")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.update(format=2), "model folder format 2, this version reads 1; update replisome"),
        (lambda s: s.pop("format"), "model folder format None"),
        (lambda s: s.pop("licence"), "key 'licence' is missing"),
        (lambda s: s.update(licence=None), "'licence' must be str, found NoneType"),
        (lambda s: s.update(context_bp=True), "'context_bp' must be int, found bool"),
        (lambda s: s.update(context_bp=-2), "context_bp must be even and 0 or more, found -2"),
        (lambda s: s.update(context_bp=3), "context_bp must be even and 0 or more, found 3"),
        (lambda s: s.update(metric={}), "unknown key 'metric'; did you mean 'metrics'?"),
        (lambda s: s.update(members=[]), "0 members, allowed are 1 to 100"),
        (lambda s: s.update(members=["a"]), "each of 'members' must hold file, bytes and sha256"),
        (lambda s: s["members"][0].update(sha256="../x"), "bytes or sha256 do not read"),
        (lambda s: s["members"][0].update(bytes="9"), "bytes or sha256 do not read"),
        (lambda s: s.update(encoder={"name": "one_hot"}), "'encoder' must hold 'name' and 'params'"),
        (lambda s: s.update(heads=[]), "'heads' must hold at least one head"),
        (lambda s: s.update(heads=s["heads"] * 2), "'heads' must hold at least one head, each name once"),
        (lambda s: s.update(heads=["count"]), "'heads' do not read"),
        (lambda s: s.update(heads=[{"name": 7}]), "'heads' do not read"),
        (lambda s: s["heads"][0].update(name=7), "'heads' do not read"),
        (lambda s: s["heads"][0].update(pairs=[["a", 1]]), "'heads' do not read"),
        (lambda s: s["heads"][0].update(pairs=[[0, 9]]), "must name each channel index at most once"),
        (lambda s: s["heads"][0].update(channels=7), "'heads' do not read"),
        (lambda s: s["heads"][0].update(channels=[["A"]]), "'heads' do not read"),
    ],
)
def test_a_spoilt_spec_is_one_sentence(folder, change, sentence):
    rewrite(folder, change)
    refused(folder, sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "does not parse as JSON"),
        ("[]", "holds no JSON object"),
        ("[" * 100_000, "does not parse as JSON: nested too deeply"),
        ('{"a": NaN}', "does not parse as JSON: NaN is no JSON number"),
        ('{"a": 1, "a": 2}', "does not parse as JSON: key 'a' stands twice"),
    ],
)
def test_text_that_is_no_spec(folder, text, sentence):
    (folder / "replisome.json").write_text(text)
    refused(folder, sentence)


def test_bytes_and_sizes_that_are_no_spec(folder, monkeypatch):
    place = folder / "replisome.json"
    place.write_bytes(b"\xff\xff")
    refused(folder, "does not parse as JSON")
    monkeypatch.setattr(_info, "MAX_SPEC_BYTES", 10)
    place.write_text("{}" + " " * 9)
    refused(folder, "larger than 10 bytes")


def test_a_disk_that_refuses_is_one_sentence(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_info, "read_header", refuse)
    refused(folder, "cannot be read: Permission denied; check its rights")


def test_canonical_text_has_one_form():
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))


def test_heads_check_themselves():
    head = HeadInfo("x", ["a", "b"], "identity", "paired", [[0, 1]])
    assert head.channels == ("a", "b")
    assert head.pairs == ((0, 1),)
    with pytest.raises(ValueError, match="pairs are given exactly where"):
        HeadInfo("x", ("a",), "identity", "symmetric", ((0, 0),))

"""`replisome models import`: what is shown, asked, refused and written."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
import torch

from engine.errors import InputError
from engine.models._info import open_model
from jobs import _models
from tests.jobs.test_cli import COMMAND, ROOT, command, invoke
from tests.toys import keras

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def install(tmp_path_factory) -> Path:
    return keras.write_install(tmp_path_factory.mktemp("site-packages"), licence="CC BY NC 4.0\nline \x1b[2J two")


def imported(install: Path, output: Path, answer: str | None, *, accept: bool = False) -> tuple[str, int]:
    """What was said before any error, and how often was asked."""
    lines: list[str] = []
    asked = 0

    def ask() -> str:
        nonlocal asked
        asked += 1
        return str(answer)

    question = None if answer is None else ask
    try:
        _models.import_networks(
            "spliceai",
            str(install),
            str(output),
            accept_licence=accept,
            say=lambda *more: lines.extend(more),
            ask=question,
        )
    except InputError as error:
        lines.append(str(error))
    return "\n".join(lines), asked


def test_the_licence_is_shown_and_asked_for_once(install, tmp_path):
    text, asked = imported(install, tmp_path / "m", " Yes\n")
    assert asked == 1
    assert "licence of the weights: CC BY-NC 4.0" in text
    assert "  CC BY NC 4.0\n  line [2J two\n" in text  # no escape sequence reaches the terminal
    assert open_model(tmp_path / "m").extra["licence"]["accepted"] is True


@pytest.mark.parametrize("answer", ["no", "", "yess", "n"])
def test_another_answer_writes_nothing(install, tmp_path, answer):
    text, asked = imported(install, tmp_path / "m", answer)
    assert asked == 1
    assert "the licence CC BY-NC 4.0 was not accepted; nothing was written" in text
    assert not (tmp_path / "m").exists()


def test_accepted_on_the_command_line_nothing_is_asked(install, tmp_path):
    text, asked = imported(install, tmp_path / "m", "no", accept=True)
    assert asked == 0
    assert "CC BY-NC 4.0, accepted with --accept-licence" in text
    assert open_model(tmp_path / "m").members == 5


def test_the_output_is_looked_at_before_anyone_is_asked(install, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "x").touch()
    text, asked = imported(install, tmp_path / "m", "yes")
    assert asked == 0
    assert "exists and is not an empty folder; give a new path with -o" in text


def test_the_command_imports_and_shows_the_facts(install, tmp_path):
    output = str(tmp_path / "m")
    done = invoke("models", "import", "spliceai", "--from", str(install), "-o", output, "--accept-licence")
    assert done.exit_code == 0, done.output
    assert "spliceai-80nt 1.3.1: dilated_conv, 5 networks, 80 bp of context" in done.stdout
    shown = json.loads(invoke("models", str(tmp_path / "m"), "--json").stdout)
    assert shown["score_tag"] == "SpliceAI"
    assert (
        invoke("models", "--json", str(tmp_path / "m")).stdout == invoke("models", str(tmp_path / "m"), "--json").stdout
    )


def test_openspliceai_from_the_command_line(tmp_path):
    from tests.engine.models.test_import_openspliceai import toy

    (tmp_path / "80nt").mkdir()
    torch.save(toy().state_dict(), tmp_path / "80nt" / "model.pt")
    words = ("models", "import", "openspliceai", "--from", str(tmp_path / "80nt"), "--output", str(tmp_path / "m"))
    done = invoke(*words, "--accept-licence")
    assert done.exit_code == 0, done.output
    assert "GPL-3.0" in done.stdout
    assert open_model(tmp_path / "m").params["nonlinearity"] == "leaky_relu"


def test_off_a_terminal_the_licence_must_be_accepted_beforehand(install, tmp_path):
    words = ("models", "import", "spliceai", "--from", str(install), "-o", str(tmp_path / "m"))
    done = command(*words, input="yes\n", stdin=None)
    assert done.returncode == 2
    assert "has to be accepted, and there is no terminal to ask on; read it, then add --accept-licence" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "CC BY NC 4.0" in done.stdout
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(("answer", "code"), [(b"yes\n", 0), (b"no\n", 2)])
def test_on_a_terminal_it_asks(install, tmp_path, answer, code):
    master, slave = pty.openpty()
    words = ["models", "import", "spliceai", "--from", str(install), "-o", str(tmp_path / "m")]
    process = subprocess.Popen([*COMMAND, *words], cwd=ROOT, stdin=slave, stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    os.write(master, answer)
    stdout, _ = process.communicate(timeout=120)
    shown = os.read(master, 10_000)
    os.close(master)
    assert process.returncode == code
    assert shown.count(b"Type yes to accept") == 1
    assert b"CC BY NC 4.0" in stdout
    assert (tmp_path / "m" / "replisome.json").exists() == (code == 0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("splicai", "--from", ".", "-o", "m"),
            "no importer named 'splicai'; did you mean 'spliceai'? known: spliceai, ",
        ),
        (
            ("spliceai", "--from", "no-such", "-o", "m"),
            "no-such: no such folder; give the folder of your SpliceAI install",
        ),
        (("spliceai", "-o", "m"), "Missing option '--from'"),
        (("spliceai", "--from", "."), "Missing option"),
    ],
)
def test_wrong_words_are_one_sentence(words, sentence, tmp_path):
    done = command("models", "import", *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_help_says_where_and_what():
    text = invoke("models", "--help").stdout
    assert "[NAME] | import ..." in text
    assert "import" in text.partition("Commands")[2]
    text = invoke("models", "import", "--help").stdout
    for words in ("--from DIR", "--output", "-o", "--accept-licence", "spliceai|openspliceai"):
        assert words in text


def test_models_reads_as_before():
    assert "splice-mini" in invoke("models").stdout
    assert "licence:" in invoke("models", "splice-mini").stdout
    done = command("models", "no-such-model")
    assert done.returncode == 2 and "no model of this name" in done.stderr
    assert command("models", "splice-mini", "more").returncode == 2

"""The documents speak of what is there: commands, options, files, tests, code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import _spec
from schemas.jobs.score_variants import ScoreVariantsSpec

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = {"run", "plan", "verify", "schema", "models", "jobs", "version", "store"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"(?<!!)\[[^]]*\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_are_there(page):
    pictures = [page.parent / name for name in re.findall(r"!\[[^]]*\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))]
    assert pictures or page.name != "README.md"
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n"), picture


def test_promises_name_tests_that_exist():
    named = re.findall(r"`(tests/[^`:]+)::([a-z0-9_]+)`", (ROOT / "docs/promises.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    missing = [
        f"{path}::{test}"
        for path, test in named
        if not (ROOT / path).exists() or f"def {test}(" not in (ROOT / path).read_text(encoding="utf-8")
    ]
    assert not missing


def test_commands_of_the_readme_exist():
    verbs = set(re.findall(r"^replisome ([a-z-]+)", "\n".join(blocks("bash")), flags=re.MULTILINE))
    assert verbs
    assert verbs <= COMMANDS | {name.replace("_", "-") for name in _spec.job_names()}


def test_options_of_the_readme_exist():
    options = [option for job in _spec.job_names() for option in _spec.job_options(job)]
    known = {flag for option in options for flag in option.flags} | {"--set", "--force", "--debug", "--custom"}
    known |= {"--from", "--accept-licence", "--no-deps", "--target"}  # of `models import`, and pip's
    known |= {"--source", "--logdir", "--data"}  # of `store import`, of TensorBoard and of benchmarks
    assert not set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README)) - known


def test_make_targets_of_the_documents_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    text = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z]+)`", text)) | set(re.findall(r"^make ([a-z]+)", text, flags=re.MULTILINE))
    assert named
    assert named <= targets


def test_the_python_example_builds_its_spec():
    (code,) = [block for block in blocks("python") if "ScoreVariantsSpec" in block]
    (call,) = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ScoreVariantsSpec"
    ]
    values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert ScoreVariantsSpec.model_validate(values).model == "splice-mini"
    imports = "\n".join(line for line in code.splitlines() if line.startswith(("from ", "import ")))
    subprocess.run([sys.executable, "-c", imports], cwd=ROOT, check=True)


def test_the_first_lines_of_the_readme_say_what_it_is_for():
    assert "Research use only; not a medical device." in README[:700]

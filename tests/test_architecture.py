"""The arrows of the house: who may import whom, in-function imports included."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("schemas", "engine", "jobs")
# Left to right; rooms of one cell may use each other, as long as no cycle arises.
CELLS = (
    ("errors", "registry"),
    ("storage",),
    ("genome", "structure", "imaging", "kernels"),
    ("io",),
    ("runtime",),
    ("ingest",),
    ("encoders",),
    ("models",),
    ("training", "scoring"),
    ("interpret", "cohort"),
)
LEVEL = {room: level for level, cell in enumerate(CELLS) for room in cell}
MAY_IMPORT_RAY = {"io", "runtime", "training", "jobs"}
MAY_IMPORT_PYSAM = {"genome", "io"}
MAY_LOAD_TORCH = {"kernels", "encoders", "models", "training", "scoring", "interpret", "cohort"}
LIGHT_ROOMS = ("encoders", "models", "scoring")
NOT_NEEDED_BY_LIGHT_ROOMS = ("pydantic", "polars", "pysam", "ray", "google_crc32c")


@dataclass(frozen=True)
class Import:
    """One import statement: who, what, where, and whether it runs when the module is loaded."""

    module: str
    target: str
    line: int
    at_load: bool


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def statements(tree: ast.AST, in_function: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, not in_function
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from statements(node, inside or _for_types_only(node))


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_of(module: str, text: str) -> Iterator[Import]:
    for node, at_load in statements(ast.parse(text)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(module, name.name, node.lineno, at_load)
        else:
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield Import(module, whole if whole in MODULES else str(node.module), node.lineno, at_load)


IMPORTS = [found for module, path in MODULES.items() for found in imports_of(module, path.read_text())]


def room(module: str) -> str:
    """Room of a module: the part after `engine.`, or the package."""
    parts = module.split(".")
    return parts[1] if parts[0] == "engine" and len(parts) > 1 else parts[0]


def wrong_arrow(one: Import) -> str:
    """Why an import runs the wrong way; empty where it is fine."""
    source, target = one.module.split(".")[0], one.target.split(".")[0]
    if target == "tests":
        return "nothing imports tests"
    if target not in PACKAGES:
        return ""
    if PACKAGES.index(target) > PACKAGES.index(source):
        return "jobs -> engine -> schemas"
    if one.module.startswith("schemas.jobs") and one.target == "schemas.tables":
        return "specs stay free of pyarrow"
    if source == target == "engine" and "." in one.module and "." in one.target:
        return "rooms import from the left" if LEVEL[room(one.target)] > LEVEL[room(one.module)] else ""
    return ""


def test_every_room_has_a_place():
    rooms = {room(module) for module in MODULES if module.startswith("engine.")}
    assert rooms <= set(LEVEL), rooms - set(LEVEL)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_arrows(module):
    wrong = [(one.target, one.line, why) for one in IMPORTS if one.module == module and (why := wrong_arrow(one))]
    assert not wrong


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("engine.genome.x", "def f():\n    from engine.models import _info"),
        ("engine.storage.x", "import engine.io.source"),
        ("schemas.x", "from engine.errors import InputError"),
        ("engine.runtime.x", "def f():\n    def g():\n        import jobs.cli"),
        ("schemas.jobs.x", "from schemas.tables import PLAN"),
        ("jobs.x", "from tests.toys import genome"),
    ],
)
def test_a_wrong_arrow_is_seen(module, text):
    assert all(wrong_arrow(one) for one in imports_of(module, text))


def cycle_in(edges: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_cycles():
    edges: dict[str, set[str]] = {module: set() for module in MODULES}
    for one in IMPORTS:
        if one.target in MODULES and one.target != one.module:
            edges[one.module].add(one.target)
    assert cycle_in(edges) == []
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}})


@pytest.mark.parametrize(("package", "rooms"), [("ray", MAY_IMPORT_RAY), ("pysam", MAY_IMPORT_PYSAM)])
def test_only_some_rooms_know_the_package(package, rooms):
    users = {one.module for one in IMPORTS if one.target.split(".")[0] == package}
    assert users
    assert not {module for module in users if room(module) not in rooms}


def test_torch_is_loaded_late_outside_the_model_rooms():
    early = {one.module for one in IMPORTS if one.target.split(".")[0] == "torch" and one.at_load}
    assert not {module for module in early if room(module) not in MAY_LOAD_TORCH}


BLOCK = """
import importlib, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is not needed here")
sys.meta_path.insert(0, Block())
for name in {names!r}:
    importlib.import_module(name)
print("fine")
"""


def import_blocked(names: list[str], blocked: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    code = BLOCK.format(blocked=set(blocked), names=names)
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_encoders_models_and_scoring_load_with_torch_and_numpy_alone():
    names = sorted(module for module in MODULES if room(module) in LIGHT_ROOMS)
    done = import_blocked(names, NOT_NEEDED_BY_LIGHT_ROOMS)
    assert done.stdout == "fine\n", done.stderr
    assert "not needed here" in import_blocked(["numpy"], ("numpy",)).stderr


def test_in_process_work_loads_without_ray():
    names = sorted(module for module in MODULES if module != "jobs.cli" and not module.endswith("ray_data"))
    done = import_blocked(names, ("ray",))
    assert done.stdout == "fine\n", done.stderr


def test_help_loads_nothing_heavy():
    heavy = ("torch", "numpy", "pyarrow", "polars", "pysam", "ray", "pydantic", "rich", "yaml")
    done = import_blocked(["jobs.cli"], heavy)
    assert done.stdout == "fine\n", done.stderr


def test_the_wheel_lists_every_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    assert set(listed) == folders


def test_the_version_is_one():
    from engine import __version__

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__

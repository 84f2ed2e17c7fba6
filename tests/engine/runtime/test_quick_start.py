"""Pandas stays out of a process until somebody asks for it."""

import subprocess
import sys


def run(lines: str) -> str:
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    return done.stdout.strip()


BEGIN = (
    "import sys\nimport pyarrow as pa\nfrom engine.runtime.quick_start import leave_pandas_out\nleave_pandas_out()\n"
)


def test_arrays_of_lists_load_no_pandas() -> None:
    assert run(BEGIN + "pa.array(['a', None]); pa.table({'x': [1, 2]})\nprint('pandas' in sys.modules)") == "False"
    assert run("import sys, pyarrow as pa\npa.array([1])\nprint('pandas' in sys.modules)") == "True", (
        "or it is not needed"
    )


def test_who_asks_for_pandas_gets_it() -> None:
    asked = "print(pa.table({'x': [1, 2]}).to_pandas()['x'].sum())\nimport pandas\nprint(pandas.Series([3]).sum())"
    assert run(BEGIN + asked).split() == ["3", "3"]
    made = "import pandas\nprint(pa.Table.from_pandas(pandas.DataFrame({'x': [1, 2]}))['x'].to_pylist())"
    assert run(BEGIN + made) == "[1, 2]"


def test_pandas_that_is_there_stays() -> None:
    assert run("import pandas, sys\n" + BEGIN + "print(sys.modules['pandas'] is pandas)") == "True"

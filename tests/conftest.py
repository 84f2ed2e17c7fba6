"""What all tests share: quiet threads, one Ray cluster for the run, CPU always and CUDA where there is one."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator

import hypothesis
import pytest

# Before numpy or torch start their pools, and inherited by subprocesses: tests run beside each other on few cores.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# Time limits belong to pytest-timeout: a busy machine must not turn a law into a failure.
hypothesis.settings.register_profile(
    "replisome", deadline=None, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("replisome")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Soak tests run only when asked for; GPU tests are skipped where there is no CUDA device."""
    asked = "soak" in config.getoption("-m")
    for item in items:
        if not asked and "soak" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="long: run with make soak"))
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="no CUDA device"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """A torch device name: the CPU always, CUDA where present."""
    return str(request.param)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """The one Ray cluster of the run: private, 2 logical CPUs, no dashboard, 512 MB of object store.

    Sockets need a short path, and a plain `ray.init` would attach to any cluster of the same temporary folder.
    """
    folder = tempfile.mkdtemp(prefix="rt-", dir="/tmp")
    former = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_DATA_DISABLE_PROGRESS_BARS")}
    os.environ.update(
        {"RAY_AUTH_MODE": "disabled", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        import ray.data

        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=512 * 2**20,
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=False,
            _temp_dir=folder,
        )
    try:
        yield
    finally:
        ray.shutdown()
        for name, value in former.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        shutil.rmtree(folder, ignore_errors=True)

"""What all tests share: quiet threads, one Ray cluster for the run, CPU always and CUDA where there is one."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Before numpy or torch start their pools, and inherited by subprocesses: tests run beside each other on few cores.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# Time limits belong to pytest-timeout: a busy machine must not turn a law into a failure.
# Laws are tried on new examples at each run, but for CI, which must judge a change and not the draw.
hypothesis.settings.register_profile(
    "replisome",
    deadline=None,
    database=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
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
def s3_endpoint() -> Iterator[str]:
    """Address of a local S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket of the test's own, as s3://NAME; the environment leads here, for subprocesses too."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{tmp_path.name.replace('_', '-')[:40]}".lower().rstrip("-")
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}"


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

"""cluster.yaml passes Ray's own validator, and stays shut to strangers."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest

from schemas._yaml import read_yaml

FILE = Path(__file__).parent.parent / "cluster.yaml"


@pytest.fixture
def config() -> dict[str, Any]:
    return read_yaml(FILE.read_bytes(), where=str(FILE)).values


def validate(config: dict[str, Any]) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.autoscaler._private.util import prepare_config, validate_config

        prepared = prepare_config(copy.deepcopy(config))
        validate_config(prepared)
    return prepared


def test_ray_accepts_it(config):
    prepared = validate(config)
    assert prepared["available_node_types"]


@pytest.mark.parametrize(("key", "value"), [("clster_name", "x"), ("idle_timeout_minutes", "ten"), ("provider", {})])
def test_ray_would_refuse_a_wrong_one(config, key, value):
    with pytest.raises(Exception, match=r"clster_name|ten|type|provider"):
        validate({**config, key: value})


def start_commands(config: dict[str, Any]) -> list[str]:
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


def test_every_node_asks_for_the_token(config):
    commands = start_commands(config)
    assert len(commands) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in commands)
    assert config["file_mounts"]["~/.ray/auth_token"]


def test_the_dashboard_answers_on_localhost_only(config):
    (head,) = [command for command in start_commands(config) if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in head


def test_no_command_prints_a_token(config):
    everything = [command for key, value in config.items() if key.endswith("commands") for command in value]
    assert everything
    assert not [command for command in everything if "get-auth-token" in command or "cat " in command]

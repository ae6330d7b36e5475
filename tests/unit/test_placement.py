"""`placement:`: roles to devices and hosts, refused where it cannot be, and no part of what a run is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from served_tools import PROGRAM
from tiny_lm import LLAMA

from outcross.config.runfile import Plan, plan
from outcross.errors import ConfigError
from outcross.models.http import Http
from outcross.models.served import Served, ServedLearner
from outcross.models.torch_lm import TorchLM
from outcross.recipe import fingerprint

LM = {"use": "from_config", "config": LLAMA, "alphabet": "0123456789+="}


def made(tmp_path: Path, models: dict[str, Any], placement: dict[str, Any] | None = None, **more: Any) -> Plan:
    bench = {
        "tasks": "arithmetic",
        "held_out": {"use": "arithmetic", "split": "held_out"},
        "real": "none",
        "verify": "exact",
        "probes": {"use": "pass_rate", "generator": "draw"},
    }
    raw = {"recipe": "expert_iteration", "bench": bench, "models": models, **more}
    return plan(raw if placement is None else {**raw, "placement": placement}, tmp_path)


@pytest.fixture(autouse=True)
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, as far as counting goes."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_a_local_model_computes_on_its_device(tmp_path: Path) -> None:
    placed = made(tmp_path, {"policy": LM, "judge": LM}, {"judge": "cpu"}, machine={"threads": 1})
    model = placed.build_model("judge")
    assert isinstance(model, TorchLM)
    assert (model.machine.device, model.machine.threads) == ("cpu", 1)
    other = placed.build_model("policy")
    assert isinstance(other, TorchLM) and other.machine.device == "auto"
    own = made(tmp_path, {"policy": {**LM, "machine": {"threads": 2}}}, {"policy": "cpu"}).build_model("policy")
    assert isinstance(own, TorchLM) and (own.machine.device, own.machine.threads) == ("cpu", 2)


def test_a_served_model_and_its_server_have_devices_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "answer.txt").write_text("yes")
    models = {
        "policy": {"use": "served", "command": PROGRAM, "model": LM, "memory": "own"},
        "judge": {"use": "served", "command": PROGRAM, "folder": "judge"},
    }
    placed = made(
        tmp_path,
        models,
        {"policy": {"device": "cpu", "server": "cuda:0,1"}, "judge": {"device": "cuda:1", "port": 8123, "host": "0.0.0.0"}},
    )
    policy, judge = placed.build_model("policy"), placed.build_model("judge")
    assert isinstance(policy, ServedLearner) and isinstance(judge, Served)
    assert policy._station.setup.place.environment() == {"CUDA_VISIBLE_DEVICES": "0,1"}
    inner = policy._learner.inner
    assert isinstance(inner, TorchLM) and inner.machine.device == "cpu"
    where = judge._station.setup.place
    assert (where.environment(), where.port, where.host) == ({"CUDA_VISIBLE_DEVICES": "1"}, 8123, "0.0.0.0")
    assert {policy.id, judge.id} == {made(tmp_path, models).build_model(role).id for role in models}


def test_an_endpoint_has_a_host(tmp_path: Path) -> None:
    models = {"policy": LM, "teacher": {"use": "http", "url": "http://one:8000/v1", "model": "m", "key_env": None}}
    placed = made(tmp_path, models, {"teacher": {"host": "http://other:8000/v1"}}).build_model("teacher")
    assert isinstance(placed, Http) and placed.abilities.server == "m at http://other:8000/v1"


def test_it_is_no_part_of_what_the_run_is(tmp_path: Path) -> None:
    here, there = made(tmp_path, {"policy": LM}), made(tmp_path, {"policy": LM}, {"policy": "cpu"})
    assert fingerprint(here.build_recipe()) == fingerprint(there.build_recipe())
    assert here.build_model("policy").id == there.build_model("policy").id
    assert {key for key in here.config if here.config[key] != there.config[key]} == {"placement"}
    assert plan(there.config, tmp_path).config == there.config  # resuming places it again


@pytest.mark.parametrize(
    ("models", "placement", "told"),
    [
        ({"policy": LM}, {"polcy": "cpu"}, r"placement.polcy: there is no such role .*did you mean .*policy"),
        ({"policy": LM}, {"policy": "tpu:0"}, r"placement.policy is 'tpu:0'; allowed: auto, cpu, mps, cuda or cuda:0"),
        ({"policy": LM}, {"policy": "http://a/v1"}, "an address goes under `host`"),
        ({"policy": LM}, {"policy": "cuda:0,1"}, "a model in this process computes on one device"),
        (
            {"policy": LM},
            {"policy": {"host": "http://a/v1"}},
            "placement.policy.host is 'http://a/v1', and 'from_config' runs in this process; it can be given device",
        ),
        (
            {"policy": LM},
            {"policy": {"devise": "cpu"}},
            r"placement.policy.devise: there is no setting 'devise' here; did you mean .*device",
        ),
        ({"policy": LM}, {"policy": 3}, "placement.policy is 3; give a device"),
        ({"policy": LM}, {"policy": {"port": "x"}}, "placement.policy.port is 'x'; it must be a whole number"),
        ({"policy": {**LM, "machine": {"device": "cpu"}}}, {"policy": "cuda:0"}, "models.policy.machine.device 'cpu'; say it once"),
        ({"policy": "tabular"}, {"policy": "cpu"}, "placement.policy.device is 'cpu', and 'tabular' has no device"),
        (
            {"policy": {"use": "http", "url": "http://a/v1", "model": "m"}},
            {"policy": "cuda:0"},
            "'http' is an endpoint; it can be given host",
        ),
        (
            {"policy": LM, "judge": "policy"},
            {"policy": "cpu", "judge": "cuda:0"},
            "placement.policy and placement.judge differ .*played by the model of 'policy'",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_built(
    tmp_path: Path, models: dict[str, Any], placement: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        made(tmp_path, models, placement)


def test_roles_of_one_model_may_say_the_same_twice(tmp_path: Path) -> None:
    placed = made(tmp_path, {"policy": LM, "judge": "policy"}, {"policy": "cpu", "judge": "cpu"}).build_models()
    assert placed["policy"] is placed["judge"]


def test_a_device_that_is_not_here_is_refused_with_what_torch_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"placement.policy is 'cuda:2', and torch \S+ sees 2 cuda devices here"):
        made(tmp_path, {"policy": LM}, {"policy": "cuda:2"}).build_models()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"placement.policy is 'cuda', and torch \S+ sees no cuda device here"):
        made(tmp_path, {"policy": LM, "judge": "policy"}, {"judge": "cuda"}).build_models()
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([Path("/dev/nvidia0")]))  # a server may have a torch of its own
    served = {"use": "served", "command": PROGRAM, "folder": "owner/name"}
    assert made(tmp_path, {"policy": served}, {"policy": "cuda:0"}).build_models()
    with pytest.raises(ConfigError, match="and the system 1"):
        made(tmp_path, {"policy": served}, {"policy": "cuda:1"}).build_models()

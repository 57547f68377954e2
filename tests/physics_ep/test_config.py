"""Configs are read strictly; optimizers and schedulers are built from them or refused in one line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from physics_ep.config import load_config, load_subject, load_system, parse_config
from physics_ep.errors import InputError
from physics_ep.placement import require_memory, resolve_device, resolve_dtype
from physics_ep.registry import bundled
from physics_ep.runs.optimization import (
    build_optimizer,
    build_scheduler,
    optimizers,
    schedulers,
    step_scheduler,
)

SYSTEM = {"system": {"name": "hopfield", "sizes": [4, 3, 2]}}


def network() -> torch.nn.Module:
    """Two layers named '0' and '1'."""
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))


def test_bundled_configs_are_valid() -> None:
    """If this fails, a config that ships with the package does not run."""
    assert {"hopfield-digits", "hopfield-mnist"} <= set(bundled())
    for name in bundled():
        config = load_config(name)
        assert parse_config(config.as_dict()) == config


def test_file_dict_and_bundled_name_agree(tmp_path: Path) -> None:
    """If this fails, the three ways to give a config mean different things."""
    path = bundled()["hopfield-digits"]
    copied = tmp_path / "mine.toml"
    copied.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    assert load_config(copied) == load_config(table) == load_config("hopfield-digits")


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("training.epochs=3", "training", "epochs", 3),
        ("ep.beta = 2e-3", "ep", "beta", 0.002),
        ("ep.beta=auto", "ep", "beta", "auto"),
        ("ep.scheme=holomorphic:4", "ep", "scheme", "holomorphic:4"),
        ("data.folder=/some/where else", "data", "folder", "/some/where else"),
        ("data.download=true", "data", "download", True),
        ("system.sizes=[4, 8, 2]", "system", "sizes", [4, 8, 2]),
        ('optimizer.groups."layers.1.".lr=0.5', "optimizer", "groups", {"layers.1.": {"lr": 0.5}}),
    ],
)
def test_overrides_are_toml_values_or_bare_words(override: str, section: str, key: str, value: object) -> None:
    """If this fails, --set changes the wrong entry, or its type."""
    assert load_config(SYSTEM, [override]).as_dict()[section][key] == value


@given(value=st.one_of(st.integers(1, 10**6), st.floats(1e-6, 1e6), st.just("auto")))
def test_override_gives_back_any_value(value: float | str) -> None:
    """If this fails, some numbers do not survive the way through --set."""
    config = load_config(SYSTEM, [f"ep.beta={value}"])
    assert config.ep.beta == value


def test_override_leaves_the_callers_table_alone() -> None:
    """If this fails, one run's overrides leak into the next."""
    load_config(SYSTEM, ["system.sizes=[1, 1]"])
    assert SYSTEM["system"]["sizes"] == [4, 3, 2]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainin.epochs=3", "section of the config must be one of"),
        ("training.epocs=3", "key of [training]"),
        ("training.epocs=3", "Did you mean 'epochs'?"),
        ("training.epochs=0", "training.epochs must be greater than 0, but was 0"),
        ("training.epochs=2.5", "training.epochs must be a valid integer, but was 2.5"),
        ("training.epochs=many", "training.epochs must be a valid integer, but was 'many'"),
        ("training.batch_size=-1", "training.batch_size must be greater than 0"),
        ("training.on_unconverged=ignore", "training.on_unconverged must be 'skip', 'raise' or 'warn'"),
        ("training.max_skipped=2.0", "training.max_skipped must be less than or equal to 1"),
        ("ep.beta=0", "ep.beta must be positive"),
        ("ep.beta=-0.1", "ep.beta must be positive"),
        ("ep.beta=nan", "ep.beta must be finite"),
        ("ep.beta=true", "ep.beta must be a positive number or 'auto', but was True"),
        ("ep.scheme=centred", "Did you mean 'centered'?"),
        ("ep.solver=andersen", "Did you mean 'anderson'?"),
        ("ep.cost=square_error", "Did you mean 'squared_error'?"),
        ("ep.tolerance=-1e-6", "ep.tolerance must be greater than 0"),
        ("ep.max_iterations=0", "ep.max_iterations must be greater than 0"),
        ("system.name=hopfeld", "Did you mean 'hopfield'?"),
        ("optimizer.lr=nan", "optimizer.lr must be finite"),
        ("data.pad_to=0", "data.pad_to must be greater than 0"),
        ("data=3", "form section.key=value"),
        ("ep.beta", "form section.key=value"),
        ("ep beta=1", "form section.key=value"),
    ],
)
def test_mistakes_are_named_in_one_line(override: str, words: str) -> None:
    """If this fails, a misspelt or mistyped entry is ignored, or ends in a page of pydantic."""
    with pytest.raises(InputError) as caught:
        load_config(SYSTEM, [override])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("hopfield-digit", "Did you mean 'hopfield-digits'?"),
        ("missing.toml", "'missing.toml', which is no file"),
        ({"training": {"epochs": 1}}, "Argument system must be given"),
        ({"system": {"sizes": [1, 2]}}, "Argument system.name must be given"),
        ({"system": "hopfield"}, "Argument system must be"),
    ],
)
def test_config_that_is_none_is_named(config: Any, words: str) -> None:
    """If this fails, a wrong path or an empty config fails in a place that tells nothing."""
    with pytest.raises(InputError) as caught:
        load_config(config)
    assert words in str(caught.value)


def test_toml_that_is_broken_is_named(tmp_path: Path) -> None:
    """If this fails, a syntax error ends in a traceback."""
    path = tmp_path / "broken.toml"
    path.write_text("[system\nname=", encoding="utf-8")
    with pytest.raises(InputError, match="not valid TOML"):
        load_config(path)


def test_a_netlist_in_the_place_of_a_system_is_told_its_way(tmp_path: Path) -> None:
    """Breaks if the first line of a netlist is judged as TOML, and its reader is left to guess."""
    path = tmp_path / "net.cir"
    path.write_text("a divider\nV1 a 0 1\n.end\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"net.cir' must name its inputs .*'\* inputs: Vx1 Vx2'"):
        load_system(path)
    other = tmp_path / "net.txt"
    other.write_text("a divider\nV1 a 0 1\n.end\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"be a TOML file, a netlist \(\.cir, .*net.txt', which is none: .*"):
        load_system(other)


def test_system_by_name_file_and_options(tmp_path: Path) -> None:
    """If this fails, commands that take SYSTEM build another one than asked for."""
    path = tmp_path / "mine.toml"
    path.write_text('[system]\nname = "hopfield"\nsizes = [5, 4, 3]\n', encoding="utf-8")
    assert next(p.shape for p in load_system(path).parameters()) == (4, 5)
    assert next(p.shape for p in load_system("hopfield").parameters()) == (128, 64)
    assert next(p.shape for p in load_system("hopfield", sizes=[6, 2]).parameters()) == (2, 6)
    assert load_subject("hopfield").data.name == "digits"
    with pytest.raises(InputError, match="Did you mean 'hopfield'"):
        load_system("hopfeld")


def test_groups_divide_parameters_by_longest_prefix() -> None:
    """If this fails, a layer learns at another layer's rate."""
    section = load_config(
        {**SYSTEM, "optimizer": {"name": "sgd", "lr": 0.1, "groups": {"1.": {"lr": 0.2}, "1.b": {"lr": 0.3}}}}
    ).optimizer
    module = network()
    optimizer = build_optimizer(section, module)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {n: rate[id(p)] for n, p in module.named_parameters()} == {
        "0.weight": 0.1,
        "0.bias": 0.1,
        "1.weight": 0.2,
        "1.bias": 0.3,
    }


@pytest.mark.parametrize("name", ["SGD", "Adam", "adamw", "RMSprop", "Adagrad", "NAdam", "Rprop"])
def test_torch_optimizers_are_built_by_name(name: str) -> None:
    """If this fails, 'any optimizer of torch' is a promise not kept."""
    section = load_config({**SYSTEM, "optimizer": {"name": name, "lr": 0.01}}).optimizer
    assert type(build_optimizer(section, network())).__name__.lower() == name.lower()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "SDG", "lr": 0.1}, "Did you mean 'SGD'?"),
        ({"name": "LBFGS"}, "evaluates the loss several times"),
        ({"name": "SGD", "momentun": 0.1}, "Did you mean 'momentum'?"),
        ({"name": "SGD", "lr": -1.0}, "Invalid learning rate"),
        ({"name": "SGD", "lr": "fast"}, "Argument lr of optimizer SGD"),
        ({"name": "SGD", "lr": 0.1, "groups": {"2.": {"lr": 1.0}}}, "[optimizer.groups] prefix"),
        ({"name": "SGD", "lr": 0.1, "groups": {"1.": {"rl": 1.0}}}, "group '1.'"),
        ({"name": "SGD", "params": [1]}, "but was 'params'"),
    ],
)
def test_bad_optimizer_is_named(options: dict[str, Any], words: str) -> None:
    """If this fails, a wrong option shows as a traceback of torch, or not at all."""
    section = load_config({**SYSTEM, "optimizer": options}).optimizer
    with pytest.raises(InputError) as caught:
        build_optimizer(section, network())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scheduler_takes_its_length_from_the_epochs() -> None:
    """If this fails, a cosine schedule does not end where training does."""
    config = load_config({**SYSTEM, "optimizer": {"lr": 1.0}, "scheduler": {"name": "cosineannealinglr"}})
    optimizer = build_optimizer(config.optimizer, network())
    scheduler = build_scheduler(config.scheduler, optimizer, epochs=4)
    optimizer.step()
    for _ in range(4):
        step_scheduler(scheduler, 1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_scheduler_that_watches_the_loss_is_given_it() -> None:
    """If this fails, ReduceLROnPlateau cannot be used, or never reduces."""
    config = load_config(
        {**SYSTEM, "optimizer": {"lr": 1.0}, "scheduler": {"name": "ReduceLROnPlateau", "patience": 0}}
    )
    optimizer = build_optimizer(config.optimizer, network())
    scheduler = build_scheduler(config.scheduler, optimizer, epochs=4)
    for loss in (1.0, 2.0):
        step_scheduler(scheduler, loss)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "CosineAnealingLR"}, "Did you mean 'CosineAnnealingLR'?"),
        ({"name": "StepLR", "step": 3}, "Did you mean 'step_size'?"),
        ({"name": "StepLR"}, "Argument step_size of scheduler StepLR must be given"),
        ({"name": "LambdaLR", "lr_lambda": "f"}, "scheduler LambdaLR"),
    ],
)
def test_bad_scheduler_is_named(options: dict[str, Any], words: str) -> None:
    """If this fails, a wrong scheduler fails after the first epoch, or never shows."""
    config = load_config({**SYSTEM, "optimizer": {"lr": 1.0}, "scheduler": options})
    with pytest.raises(InputError) as caught:
        build_scheduler(config.scheduler, build_optimizer(config.optimizer, network()), 4)
    assert words in str(caught.value)


def test_every_torch_optimizer_and_scheduler_is_offered() -> None:
    """If this fails, a name that torch knows is refused."""
    assert {"sgd", "adam", "lbfgs"} <= set(optimizers())
    assert {"cosineannealinglr", "steplr", "reducelronplateau"} <= set(schedulers())


def test_device_dtype_and_memory_are_refused_by_name() -> None:
    """If this fails, a wrong device or too large a job ends in a traceback, or in a killed process."""
    assert resolve_dtype("float64") == torch.float64
    assert resolve_device(None).type == "cpu"
    for bad in ("tpu", "cuda:99", "meta"):
        with pytest.raises(InputError, match="Argument device must"):
            resolve_device(bad)
    with pytest.raises(InputError, match="Argument dtype must"):
        resolve_dtype("float16")
    with pytest.raises(InputError, match="Too little memory on cpu"):
        require_memory(10**18, torch.device("cpu"))

"""What a config without a recipe is trained by: that of its system's bundled config for the digits.

A config that names no optimizer (`optimizer.name`) takes [optimizer], [scheduler] and [ep] of NAME-digits, and
epochs and batch size unless it says others. Keys that it gives in [optimizer] and [ep] replace those of the recipe
one by one; rates of single layers keep their ratio to lr. A system learns by steps of the optimizer: where the data
have fewer examples than the digits, a config that says no epochs takes as many as have the steps of the bundled
recipe. One that names no sizes takes that system, with as many inputs and outputs as the data have. Systems without
a bundled config, a model of one's own above all, take `OWN_MODELS`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from .config import Config, parse_config
from .registry import bundled
from .storage.texts import parse_toml, read_text

PACE = ("epochs", "batch_size", "dtype")
"""Entries of [training] that belong to a recipe: a learning rate is right for a batch size, a tolerance for a
precision."""
FEW = 5
"""Examples of an epoch that may be skipped at least, however few it has: 1 % of a table of 160 rows is one."""
DRIVE = 15.0
"""Mean over the digits of the sum of the squares of their 64 pixels."""
DIGITS = 1437
"""Examples of the digits that the bundled recipes train on."""

OWN_MODELS = {"name": "Adam", "lr": 1e-3}
"""[optimizer] of systems without a bundled config: Adam's steps do not hang on the scale of a cost. torch's own
default, SGD at 0.001, leaves a new network at chance for tens of epochs."""

SLOWER = 0.4
"""Learning rate of a recipe for the cross-entropy where targets are measured: the squared error is twice as steep
at the least, and networks of pcn-digits that learnt it at the whole rate ceased to settle."""


def standard(name: str) -> dict[str, Any]:
    """Sections of the bundled config NAME-digits; empty where there is no such config."""
    path = bundled().get(f"{name}-digits")
    return {} if path is None else parse_toml(read_text(path, "config"))


def with_recipe(config: Config) -> Config:
    """The config with the recipe of its system's bundled config, refined by the keys that it gives itself.

    Parameters
    ----------
    config : Config

    Returns
    -------
    Config
        The same where it names its optimizer.
    """
    if not lacks_recipe(config):
        return config
    found, given = standard(config.system.name), config.as_given()
    own = given.get("ep") or {}
    if not found:
        optimizer = _refined(OWN_MODELS, given.get("optimizer") or {})
        return config.updated(optimizer=optimizer, ep=_giving_way(own, "beta" in own))
    recipe: dict[str, Any] = {name: found[name] for name in ("optimizer", "scheduler", "ep") if name in found}
    usual, sizes = found["system"].get("sizes"), config.system.options.get("sizes", found["system"].get("sizes"))
    if isinstance(usual, list) and isinstance(sizes, list):
        groups = recipe["optimizer"].get("groups", {})
        recipe["optimizer"] = {**recipe["optimizer"], "groups": _spread(groups, len(usual) - 1, len(sizes) - 1)}
    pace = {key: value for key, value in found.get("training", {}).items() if key in PACE}
    ep = dict(recipe.get("ep", {}))
    if own.get("cost", ep.get("cost")) != ep.get("cost"):
        ep.pop("target", None)  # of the squared error alone
    refined = {
        "optimizer": _refined(recipe["optimizer"], given.get("optimizer") or {}),
        "ep": _giving_way({**ep, **own}, "beta" in own),
        "training": {**pace, **(given.get("training") or {})},
    }
    return parse_config({**recipe, **given, **refined})


def _refined(optimizer: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """[optimizer] of a recipe with the keys that a config gives.

    Rates of groups of parameters keep their ratio to lr: they are what a layer bears beside the others.
    """
    groups: dict[str, dict[str, Any]] = {k: dict(v) for k, v in optimizer.get("groups", {}).items()}
    ratio = _ratio(own.get("lr"), optimizer.get("lr"))
    for options in groups.values():
        if ratio is not None and "lr" in options:
            options["lr"] *= ratio
    for prefix, options in (own.get("groups") or {}).items():
        groups[prefix] = {**groups.get(prefix, {}), **options}
    return {**optimizer, **own, **({"groups": groups} if groups else {})}


def _ratio(own: Any, usual: Any) -> float | None:
    """Quotient of two learning rates; None where either is none, or the first is no number (torch refuses it)."""
    if isinstance(own, bool) or not isinstance(own, int | float) or not usual:
        return None
    return float(own / usual)


def _giving_way(ep: dict[str, Any], asked: bool) -> dict[str, Any]:
    """[ep] with a beta that gives way, unless it was asked for: that of a recipe is right for what it was tried on,
    and the limit of other data may fall below it as the network learns."""
    return ep if asked or ep.get("beta") == "auto" else {"lower_beta": True, **ep}


def lacks_epochs(config: Config) -> bool:
    """Whether the config leaves it to its system's recipe how long it learns."""
    known = "epochs" in standard(config.system.name).get("training", {})
    return known and lacks_recipe(config) and "epochs" not in config.training.model_fields_set


def with_steps(config: Config, examples: int) -> Config:
    """The config with as many epochs as have the steps of the optimizer that the recipe takes on the digits.

    Parameters
    ----------
    config : Config
        What `with_recipe` made of one that `lacks_epochs`.
    examples : int
        Examples to train on.

    Returns
    -------
    Config
        The same where there are as many examples as the digits are, or more.
    """
    usual = standard(config.system.name)["training"]
    steps = usual["epochs"] * math.ceil(DIGITS / usual["batch_size"])
    epochs = math.ceil(steps / math.ceil(examples / config.training.batch_size))
    return config.updated(training={"epochs": epochs}) if epochs > usual["epochs"] else config


def with_mercy(config: Config, examples: int) -> Config:
    """The config with room for a few skipped examples in epochs of few examples, unless it says how many may be."""
    if "max_skipped" in config.training.model_fields_set or not examples:
        return config
    share = min(FEW / examples, 1.0)
    return config.updated(training={"max_skipped": share}) if share > config.training.max_skipped else config


def lacks_recipe(config: Config) -> bool:
    """Whether the config leaves the optimizer and EP's options to its system's recipe."""
    return "name" not in config.optimizer.model_fields_set


def told_rate(config: Config) -> str:
    """The learning rate of the system's recipe, in words, where a config has that recipe with another one; or
    empty."""
    usual, own = standard(config.system.name).get("optimizer", OWN_MODELS), config.optimizer
    rest = {key: value for key, value in usual.items() if key not in ("name", "lr", "groups")}
    lr, rate = own.options.get("lr"), usual.get("lr")
    others = {key: value for key, value in own.options.items() if key not in ("lr", "groups")}
    if own.name != usual["name"] or others != rest or not isinstance(lr, int | float) or rate is None:
        return ""
    name = f"{config.system.name}-digits" if standard(config.system.name) else "the usual recipe"
    return "" if lr in (rate, SLOWER * rate) else f"{name} has {rate:.3g}"


def lacks_sizes(config: Config) -> bool:
    """Whether the config leaves the size of its system to the data."""
    usual = standard(config.system.name).get("system", {}).get("sizes")
    return isinstance(usual, list) and not {"sizes", "weights"} & set(config.as_given()["system"])


def with_sizes(config: Config, inputs: int, outputs: int) -> Config:
    """The config with the system of its bundled config, between the numbers of inputs and of outputs of the data.

    Parameters
    ----------
    config : Config
        One that `lacks_sizes`.
    inputs, outputs : int
        Numbers of an example, and classes or measured targets.
    """
    usual = standard(config.system.name)["system"]
    sizes = [inputs, *usual["sizes"][1:-1], outputs]
    return config.updated(system={**usual, **config.system.options, "sizes": sizes})


def with_gain(config: Config, x: torch.Tensor) -> Config:
    """The config with the volts that a feature of 1 stands for, of resistive networks.

    A hidden node is at the mean of its inputs, x @ g / sum(g): of n features it has sqrt(sum of their squares) / n
    of one's volts. `input_gain` is such that this is what it is for the digits, for which the recipe's target, beta
    and rates were found: four features of deviation 1 otherwise drive hidden nodes with eight times the digits'
    volts, whose outputs targets do not reach.

    Parameters
    ----------
    config : Config
        What `with_sizes` made, of a system whose gain the config leaves to it.
    x : Tensor (N, ...)
        Inputs to train on, as they are scaled.
    """
    usual = standard(config.system.name)["system"]
    squares = float(x.flatten(1).double().square().sum(1).mean()) if len(x) else 0.0
    if "input_gain" not in usual or not 0 < squares < math.inf:
        return config
    gain = usual["input_gain"] * x[0].numel() / usual["sizes"][0] * math.sqrt(DRIVE / squares)
    return config.updated(system={"input_gain": float(f"{gain:.2g}")})


def _spread(groups: Mapping[str, Any], usual: int, own: int) -> dict[str, Any]:
    """Groups of parameters by layer, for another number of layers: the last one's stay the last one's, and those of
    the first are those of all others."""
    found: dict[str, Any] = {}
    for prefix, options in groups.items():
        layer = re.fullmatch(r"layers\.(\d+)\.(.*)", prefix)
        if layer is None:
            found[prefix] = options
        elif int(layer[1]) == usual - 1:
            found[f"layers.{own - 1}.{layer[2]}"] = options
        elif int(layer[1]) == 0:
            found.update({f"layers.{k}.{layer[2]}": options for k in range(own - 1)})
    return found


def told_recipe(config: Config) -> str:
    """What a system is trained by, in one line."""
    training, ep = config.training, config.ep
    beta = f"{_told(ep.beta)} or lower" if ep.lower_beta else _told(ep.beta)
    sizes = config.system.options.get("sizes")
    shown = "-".join(map(str, sizes)) if isinstance(sizes, list) else None
    rate = told_rate(config)
    gain = config.system.options.get("input_gain")
    parts = [
        " ".join(filter(None, (config.system.name, shown, "on", config.data.name)))
        + (f", {gain:g} V per unit of an input" if isinstance(gain, int | float) else ""),
        _options(config.optimizer.name, config.optimizer.options) + (f" ({rate})" if rate else ""),
        *([] if config.scheduler is None else [_options(config.scheduler.name, config.scheduler.options)]),
        f"{training.epochs} epochs of batches of {training.batch_size}",
        f"{ep.scheme}, beta {beta}, {ep.cost}" if ep.estimator == "ep" else f"backprop, {ep.cost}",
    ]
    return "; ".join(parts)


def _options(name: str, options: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in options.items() if not isinstance(value, dict)}
    return " ".join([name, *(f"{key} {_told(value)}" for key, value in plain.items())])


def _told(value: Any) -> str:
    """A value as one line tells it: numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

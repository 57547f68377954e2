"""A config that says no recipe. If these fail, a newcomer's six lines do not learn, or a config that says how it
learns is not followed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from physics_ep import cli, open_run, train
from physics_ep.config import load_config, parse_config
from physics_ep.data.datasets import digits, load_dataset
from physics_ep.recipes import DIGITS, told_recipe, with_mercy, with_recipe
from physics_ep.registry import bundled
from physics_ep.runs.preparation import completed

RNG = np.random.default_rng(2)
KINDS = np.arange(150) % 3
FEATURES = RNG.normal(size=(150, 4)) + 2.5 * np.eye(3)[KINDS][:, [0, 1, 2, 0]]


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Three classes, whose best classifier is wrong in some 3 % of the examples."""
    path = tmp_path / "flowers.csv"
    rows = [",".join([*map(repr, x.tolist()), "xyz"[k]]) for x, k in zip(FEATURES, KINDS, strict=True)]
    path.write_text("\n".join(["a,b,c,d,species", *rows]), encoding="utf-8")
    return path


def test_six_lines_learn_a_csv(flowers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed is the recipe that the run file has: the system's own."""
    config = tmp_path / "own.toml"
    config.write_text(
        f'[system]\nname = "hopfield"\nsizes = [4, 16, 3]\n[data]\nname = "csv"\nfile = "{flowers}"\n',
        encoding="utf-8",
    )
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", str(config), "--out", str(tmp_path / "run.h5"), "--set", "training.epochs=25"])
    assert not ended.value.code
    told = " ".join(capsys.readouterr().out.split())
    assert "recipe: hopfield 4-16-3 on csv; SGD lr 0.1 momentum 0.9 nesterov True; CosineAnnealingLR" in told
    assert "25 epochs of batches of 32; centered, beta 0.1 or lower, squared_error" in told
    run = open_run(tmp_path / "run.h5")
    assert run.metric("test_error")[-1] <= 0.1
    assert (run.config["optimizer"]["lr"], run.config["training"]["batch_size"]) == (0.1, 32)


def test_a_model_of_ones_own_learns(tmp_path: Path) -> None:
    """Six lines with a torch model leave it at chance, or do not tell what it learnt by."""
    own = tmp_path / "own.py"
    own.write_text(
        "import torch\ndef model():\n    net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), "
        "torch.nn.Linear(32, 3))\n    return net, torch.randn(4, 4)\n",
        encoding="utf-8",
    )
    config = {"system": {"name": "file", "factory": f"{own}:model"}, "training": {"batch_size": 8}}
    found = train(config, data=(FEATURES, KINDS))
    assert (found.config.optimizer.name, found.config.optimizer.options["lr"]) == ("Adam", 1e-3)
    assert found.test_error <= 0.1
    said = with_recipe(parse_config({**config, "optimizer": {"name": "SGD", "lr": 0.1}}))
    assert (said.optimizer.name, said.optimizer.options["lr"]) == ("SGD", 0.1)


@pytest.mark.full
def test_sizes_are_those_of_the_data(flowers: Path) -> None:
    """With the hidden layers and options of the system's own config, but for what is given."""
    config = {"system": {"name": "hopfield", "gain": 0.4}, "data": {"name": "csv", "file": str(flowers)}}
    found = train(config, overrides=["training.epochs=1"])
    assert found.config.system.options["sizes"] == [4, 128, 3]
    assert found.config.system.options["gain"] == 0.4
    assert found.config.system.options["activation"] == "hard_sigmoid"
    assert found.config.training.epochs == 1
    net = {"system": {"name": "pcn", "sizes": [4, 8, 2]}}
    measured = train(net, overrides=["training.epochs=1"], data=(FEATURES, 0.1 * FEATURES[:, :2]))
    assert measured.config.ep.cost == "squared_error"
    assert measured.config.optimizer.options["lr"] == pytest.approx(0.02)


def test_a_config_that_names_its_optimizer_is_left_alone() -> None:
    for given in (
        {"system": {"name": "hopfield", "sizes": [4, 3]}, "optimizer": {"name": "SGD", "lr": 0.3}},
        {"system": {"name": "vgg5", "num_classes": 3}, "optimizer": {"name": "SGD"}},
        *(load_config(name).as_given() for name in bundled()),
    ):
        config = parse_config(given)
        assert with_recipe(config).as_dict() == config.as_dict()
        assert with_recipe(config.updated(training={"seed": 4})).optimizer == config.optimizer


def test_what_a_config_says_goes_before_the_recipe() -> None:
    config = parse_config(
        {"system": {"name": "pcn", "sizes": [4, 3]}, "ep": {"beta": 0.2}, "training": {"epochs": 3}}
    )
    found = with_recipe(config)
    assert (found.ep.beta, found.ep.cost, found.training.epochs) == (0.2, "cross_entropy", 3)
    assert found.optimizer.options["lr"] == 0.05
    assert "3 epochs" in told_recipe(found)


def test_a_key_refines_the_recipe_and_does_not_drop_it() -> None:
    """If this fails, `--set optimizer.lr=0.02` trains by another optimizer, without momentum, schedule and beta."""
    whole = with_recipe(parse_config({"system": {"name": "hopfield", "sizes": [4, 8, 3]}}))
    found = with_recipe(load_config({"system": {"name": "hopfield", "sizes": [4, 8, 3]}}, ["optimizer.lr=0.02"]))
    assert found.optimizer.options == {**whole.optimizer.options, "lr": 0.02}
    assert (found.scheduler, found.ep) == (whole.scheduler, whole.ep)
    assert found.optimizer.groups == {"layers.1.": {"lr": pytest.approx(0.004)}}  # a fifth of lr, as in the recipe
    assert "SGD lr 0.02 momentum 0.9 nesterov True (hopfield-digits has 0.1)" in told_recipe(found)
    assert "digits has" not in told_recipe(whole)
    own = {"lr": 0.02, "groups": {"layers.1.": {"lr": 0.5}}}
    named = with_recipe(parse_config({"system": {"name": "hopfield", "sizes": [4, 8, 3]}, "optimizer": own}))
    assert named.optimizer.groups == {"layers.1.": {"lr": 0.5}}
    resistive = {"system": {"name": "resistive", "sizes": [4, 8, 3]}}
    usual = load_config("resistive-digits").ep
    nudged = with_recipe(load_config(resistive, ["ep.beta=1e-5"]))
    assert nudged.ep.model_dump() == {**usual.model_dump(), "beta": 1e-5}
    assert with_recipe(load_config(resistive, ["ep.cost=cross_entropy"])).ep.target == 1.0
    model = with_recipe(load_config({"system": {"name": "vgg5"}}, ["optimizer.lr=0.01"]))
    assert (model.optimizer.name, model.optimizer.options) == ("Adam", {"lr": 0.01})
    data = (FEATURES, 0.1 * FEATURES[:, :2])
    measured = completed(load_config({"system": {"name": "pcn"}}, ["optimizer.lr=0.03", "ep.beta=0.1"]), data)
    assert (measured.optimizer.options["lr"], measured.ep.cost) == (0.03, "squared_error")


@pytest.mark.full
def test_a_rate_of_ones_own_is_told_where_it_diverges() -> None:
    config = {"system": {"name": "hopfield", "sizes": [4, 8, 3]}, "training": {"epochs": 3}}
    with pytest.raises(RuntimeError, match=r"lr \(1e\+12 was asked for, hopfield-digits has 0.1\)"):
        train(config, overrides=["optimizer.lr=1e12"], data=(FEATURES, KINDS))


def test_rates_of_layers_keep_their_layer() -> None:
    """A last layer's rate stays the last layer's, in deeper systems too; those of all layers are those of all."""
    deep = with_recipe(parse_config({"system": {"name": "hopfield", "sizes": [4, 8, 8, 8, 3]}}))
    assert deep.optimizer.groups == {"layers.3.": {"lr": 0.02}}
    ladder = with_recipe(parse_config({"system": {"name": "resistive", "sizes": [4, 8, 8, 3]}}))
    assert set(ladder.optimizer.groups) == {f"layers.{k}.bias" for k in range(3)}


@pytest.mark.full
@pytest.mark.parametrize("name", ["resistive", "oscillator", "pcn", "langevin-hopfield", "ising-oscillator"])
def test_every_system_learns_the_csv_from_a_minimal_config(name: str, flowers: Path) -> None:
    config = {"system": {"name": name, "sizes": [4, 16, 3]}, "data": {"name": "csv", "file": str(flowers)}}
    config["training"] = {"epochs": 100 if name == "resistive" else 25}  # its own are in the slow test below
    assert train(config).test_error <= 0.1


def test_a_small_table_is_learnt_by_as_many_steps_as_the_digits(flowers: Path) -> None:
    """If this fails, 25 epochs of 120 examples are 200 steps of a rate that takes 2000; a tenth is wrong."""
    table = {"name": "csv", "file": str(flowers)}
    for name, epochs in (("resistive", 282), ("hopfield", 282), ("fitzhugh-nagumo", 113), ("pcn", 135)):
        config = completed(parse_config({"system": {"name": name}, "data": table}))
        steps = config.training.epochs * -(-120 // config.training.batch_size)
        usual = load_config(f"{name}-digits").training
        least = usual.epochs * -(-1437 // usual.batch_size)
        assert least <= steps < least + -(-120 // config.training.batch_size)
        assert config.training.epochs == epochs
    short = parse_config({"system": {"name": "resistive"}, "data": table, "training": {"epochs": 3}})
    assert completed(short).training.epochs == 3
    sized = parse_config({"system": {"name": "resistive", "sizes": [4, 9, 3]}, "data": table})
    assert completed(sized).training.epochs == 282
    assert config.training.max_skipped == 5 / 120
    strict = parse_config({"system": {"name": "pcn"}, "data": table, "training": {"max_skipped": 0.0}})
    assert completed(strict).training.max_skipped == 0
    exact = {"system": {"name": "pcn", "sizes": [4, 3]}, "training": {"epochs": 3}, "data": table}
    assert completed(parse_config(exact)).training.max_skipped == 5 / 120  # whatever else the config says itself
    assert with_mercy(strict.updated(training={"epochs": 1}), 3).training.max_skipped == 0
    assert with_mercy(parse_config({"system": {"name": "pcn"}}), 3).training.max_skipped == 1  # at most all
    medium = completed(parse_config({"system": {"name": "fitzhugh-nagumo"}, "data": table}))
    assert medium.training.dtype == "float64"
    many = (torch.rand(2000, 4).numpy(), np.arange(2000) % 3)
    assert completed(parse_config({"system": {"name": "resistive"}}), many).training.max_skipped == 0.01
    assert completed(parse_config({"system": {"name": "resistive"}}), many).training.epochs == 25
    assert len(digits().train_x) == DIGITS


def test_a_table_drives_resistive_networks_as_the_digits_do() -> None:
    """Volts of hidden nodes, summed by hand with equal conductances at +x and -x, for tables of other widths."""
    images = digits().train_x.flatten(1)

    def volts(x: torch.Tensor, gain: float) -> float:
        """Root mean square of a hidden node's drive: conductances are 1 and 1 + a random part of 1 to 2."""
        n = x.shape[1]
        cells = 1 + torch.rand(2 * n, 40, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
        amplified = gain * torch.cat([x, -x], 1).double()
        return float((amplified @ cells / cells.sum(0)).square().mean().sqrt())

    usual = volts(images, load_config("resistive-digits").system.options["input_gain"])
    table = parse_config({"system": {"name": "resistive"}, "data": {"name": "arrays"}})
    for n, scale in ((3, 1.0), (30, 1.0), (6, 20.0)):
        x = scale * torch.randn(200, n, generator=torch.Generator().manual_seed(1))
        found = completed(table, (x.numpy(), np.arange(200) % 3))
        assert volts(x, found.system.options["input_gain"]) == pytest.approx(usual, rel=0.5)
        assert "V per unit of an input" in told_recipe(found)
    own = table.updated(system={"input_gain": 0.3})
    assert completed(own, (x.numpy(), np.arange(200) % 3)).system.options["input_gain"] == 0.3
    same = completed(table, (images.numpy(), digits().train_y.numpy()))
    assert same.system.options["input_gain"] == pytest.approx(0.5, rel=0.02)
    assert completed(parse_config({"system": {"name": "resistive"}})).system.options["input_gain"] == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resistive", "hopfield", "fitzhugh-nagumo"])
def test_six_lines_learn_as_well_as_logistic_regression(name: str, tmp_path: Path) -> None:
    """200 rows, 6 correlated features, 3 classes; all of it the defaults, sizes too."""
    generator = np.random.default_rng(3)
    kinds = np.arange(200) % 3
    mixing = 0.3 * generator.normal(size=(6, 6)) + 0.7 * np.eye(6)
    x = 0.6 * generator.normal(size=(3, 6))[kinds] + generator.normal(size=(200, 6)) @ mixing.T
    path = tmp_path / "table.csv"
    rows = [",".join([*map(repr, row.tolist()), "xyz"[k]]) for row, k in zip(x, kinds, strict=True)]
    path.write_text("\n".join(["a,b,c,d,e,f,kind", *rows]), encoding="utf-8")
    data = {"name": "csv", "file": str(path)}
    config = parse_config({"system": {"name": name}, "data": data})
    examples = load_dataset(config.data)
    weights = torch.zeros(7, 3, dtype=torch.float64, requires_grad=True)

    def logits(inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([inputs.double(), torch.ones(len(inputs), 1, dtype=torch.float64)], 1) @ weights

    optimizer = torch.optim.LBFGS([weights], max_iter=300)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits(examples.train_x), examples.train_y)
        loss = loss + 1e-3 * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    linear = float((logits(examples.test_x).argmax(1) != examples.test_y).double().mean())
    assert train(config).test_error <= linear + 0.05

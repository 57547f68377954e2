"""What SYSTEM and NETWORK name: one notion of a network in every command and in `load_system`.

If these fail, a command works on another network than the one that was named, or does not know one that another
command knows.
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from hardware_models import HopfieldNetwork
from physics_ep import cli, load_system, relax, train
from physics_ep.errors import InputError
from physics_ep.own_code import from_file
from physics_ep.predictive_coding import PredictiveCodingNetwork, from_module, mlp

OWN = """
import torch
from torch import nn
from physics_ep import EnergySystem
import beside

class Springs(EnergySystem):
    def __init__(self, n=4, gain=0.3):
        super().__init__()
        self.u = nn.Parameter(gain * torch.randn(n, 3, dtype=torch.float64))

    def initial_state(self, x):
        return (x.new_zeros(len(x), len(self.u)),)

    def energy(self, state, x):
        (s,) = state
        return (s * s + s**4 / 4).sum(1) / 2 - ((x @ self.u.T) * s).sum(1)

    def outputs(self, state):
        return state[0][:, :2]

def springs(n: int = 4, seed: int = 0):
    return Springs(n), torch.linspace(-1, 1, 36).double().view(12, 3), torch.zeros(12, 2).double()

def model():
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), torch.rand(8, 6)

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(x + torch.tanh(self.first(x)))

def residual():
    return Residual(), torch.rand(8, 6)

def normed():
    layers = [nn.Linear(6, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3)]
    return nn.Sequential(*layers), torch.rand(8, 6)

def unset():
    layers = [nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)]
    return nn.Sequential(*layers), torch.rand(8, 6)

class Dropping(Residual):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.5, self.training))

def dropping():
    return Dropping(), torch.rand(2, 6)

def alone():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))

def told():
    model = alone()
    model.example_input_array = torch.rand(5, 1, 4, 4)
    return model

def number():
    return beside.THREE

def fails():
    raise ValueError("no springs left")

def leaves():
    raise SystemExit(0)

def deep():
    return deep()
"""


def command(*arguments: object) -> int:
    """Exit status of the command."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(a) for a in arguments])
    return int(caught.value.code or 0)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("THREE = 3\n", encoding="utf-8")
    path = tmp_path / "own.py"
    path.write_text(OWN, encoding="utf-8")
    return path


def test_a_factory_of_ones_own_is_a_system_everywhere(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its options and seed, equal from call to call, picklable; the command reads its own examples."""
    system = load_system(f"{own}:springs", n=5, seed=3)
    assert system.u.shape == (5, 3)
    torch.manual_seed(3)
    assert torch.equal(system.u, 0.3 * torch.randn(5, 3, dtype=torch.float64))
    assert torch.equal(load_system(f"{own}:springs", n=5, seed=3).u, system.u)
    assert torch.equal(pickle.loads(pickle.dumps(system)).u, system.u)
    x, y = system.examples
    assert x.shape == (12, 3)
    assert y.shape == (12, 2)
    assert relax(system, x).status.settled
    assert command("gradients", f"{own}:springs", "--json", own.parent / "g.json") == 0
    assert "batch 12" in " ".join(capsys.readouterr().out.split())
    assert json.loads((own.parent / "g.json").read_text())["worst_cosine"] > 0.9999


def test_a_torch_model_with_examples_is_a_predictive_coding_network(own: Path) -> None:
    network = load_system(f"{own}:model", seed=1)
    assert isinstance(network, PredictiveCodingNetwork)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    x = torch.rand(8, 6)
    torch.testing.assert_close(network(x), model(x))
    assert torch.equal(network.examples[0], x)


def test_a_model_alone_tells_the_shape_of_its_inputs(own: Path) -> None:
    """A model that begins with a linear map needs no examples, nor one that has them: both were refused."""
    network = load_system(f"{own}:Residual", seed=2)
    assert not hasattr(network, "examples")  # random numbers of that shape are nothing to measure on
    torch.manual_seed(2)
    model, x = (nn.Linear(6, 6), nn.Linear(6, 3)), torch.rand(4, 6)
    torch.testing.assert_close(network(x), model[1](x + torch.tanh(model[0](x))))
    assert command("map", f"{own}:Residual", "--substrate", "hopfield") == 0
    images, y = load_system(f"{own}:told").examples
    assert (images.shape, y) == ((5, 1, 4, 4), None)


def test_a_model_that_is_no_chain_of_layers_is_one_too(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = load_system(f"{own}:residual", seed=2)
    x, _ = network.examples
    torch.manual_seed(2)
    first, last = nn.Linear(6, 6), nn.Linear(6, 3)
    torch.testing.assert_close(network(x), last(x + torch.tanh(first(x))))
    assert command("gradients", f"{own}:residual", "--json", own.parent / "g.json") == 0
    rows = json.loads((own.parent / "g.json").read_text())["rows"]
    assert {row["name"] for row in rows} == {"first.weight", "first.bias", "last.weight", "last.bias"}
    assert min(row["cosine"] for row in rows) > 0.999
    assert command("map", f"{own}:residual", "--json", own.parent / "m.json") == 0
    out = capsys.readouterr().out
    assert "brings" in out
    assert "training mode" not in out  # in which it was left, and which is the same function
    assert command("tolerance", f"{own}:residual", "--sweep", "levels=16", "--repeats", 1, "--gates", "held") == 0
    assert command("map", f"{own}:normed") == 2
    assert "module '1'" in capsys.readouterr().err


def test_a_model_in_training_mode_is_mapped_in_evaluation_mode_and_that_is_said(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails, a paper tells of batch norms or dropout that the hardware does not have. How many of the
    examples that it brings calibrate it is said too."""
    for name, taken in (("unset", "2 of the 8 examples"), ("dropping", "all 2 examples")):
        assert command("map", f"{own}:{name}") == 0
        out = capsys.readouterr().out
        assert "training mode" in out
        assert f"{taken} that {own}:{name} brings" in out
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(InputError, match="evaluation mode"):
        from_module(model, torch.rand(3, 1, 4, 4), form="layers")


def test_weights_and_tables_of_a_model_of_ones_own(own: Path, tmp_path: Path) -> None:
    """Weights bear the model's names, though a chain of layers has others; tables of layers are files."""
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    network = load_system(f"{own}:model", weights=tmp_path / "w.pt")
    x = torch.rand(4, 6, dtype=torch.float64)
    torch.testing.assert_close(network(x), model(x))
    torch.save(network.state_dict(), tmp_path / "own.pt")
    again = load_system(f"{own}:model", weights=tmp_path / "own.pt")
    assert torch.equal(again(x), network(x))
    torch.save({f"x{n}": v for n, v in model.state_dict().items()}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=r"missing: 0\.weight, 0\.bias, 2\.weight and 1 more"):
        load_system(f"{own}:model", weights=tmp_path / "bad.pt")
    files = [tmp_path / name for name in ("layers.csv", "layers.tex")]
    for _ in range(2):  # the second time, over what it wrote itself
        assert command("gradients", f"{own}:residual", "--csv", files[0], "--latex", files[1]) == 0
    assert (
        command("gradients", f"{own}:residual", "--latex", tmp_path / "own.tex", "--columns", "layer,weights") == 0
    )
    names = [line.partition(",")[0] for line in files[0].read_text(encoding="utf-8").splitlines()]
    assert names == ["layer", "first", "last"]
    assert "first & " in files[1].read_text(encoding="utf-8")
    assert "first & 42 " in (tmp_path / "own.tex").read_text(encoding="utf-8")


@pytest.mark.full
def test_every_command_takes_weights_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of both kinds, by the model's names, for a model with batch norm; what does not fit is named."""
    own = tmp_path / "normed.py"
    own.write_text(
        "import torch\nfrom torch import nn\n"
        "def net():\n"
        "    parts = [nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)]\n"
        "    return nn.Sequential(*parts).eval(), torch.rand(12, 64), torch.arange(12) % 10\n",
        encoding="utf-8",
    )
    model = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
    nn.init.uniform_(model[1].running_var, 0.5, 2.0)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    pytest.importorskip("safetensors.torch").save_file(model.state_dict(), tmp_path / "w.safetensors")
    torch.save({f"my.{n}": t for n, t in model.state_dict().items()}, tmp_path / "bad.pt")
    commands: list[tuple[object, ...]] = [
        ("gradients", f"{own}:net"),
        ("map", f"{own}:net"),
        ("tolerance", f"{own}:net", "--sweep", "levels=64", "--repeats", 1, "--gates", "held"),
        ("train", f"{own}:net", "--set", "training.epochs=1", "--set", "data.train_examples=64"),
        ("figure", "layers", "--from", f"{own}:net"),
    ]
    for k, words in enumerate(commands):
        for kind, status in ((("w.pt", "w.safetensors")[k % 2], 0), ("bad.pt", 2)):
            out = ("--out", tmp_path / f"{words[0]}{kind}") if words[0] in ("train", "figure") else ()
            assert command(*words, "--weights", tmp_path / kind, *out) == status, (words, kind)
        assert "missing: 0.weight, 0.bias, 1.weight and 6 more" in " ".join(capsys.readouterr().err.split())


def test_an_edited_file_is_run_again(own: Path) -> None:
    """Its old code must not answer for it."""
    before = load_system(f"{own}:springs").u.shape
    own.write_text(OWN.replace("n: int = 4", "n: int = 7"), encoding="utf-8")
    assert before == (4, 3)
    assert load_system(f"{own}:springs").u.shape == (7, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own.py:spring", "Did you mean 'springs'"),
        ("own.py:number", "must return an EnergySystem or an nn.Module.*but was int"),
        ("own.py:alone", "must return .model, x. with examples"),
        ("own.py:fails", "no springs left"),
        ("own.py:leaves", "cannot be run: SystemExit: 0, line"),
        ("own.py:deep", "cannot be run: RecursionError.*line"),
        ("leaving.py:x", "cannot be run: SystemExit.*line 2"),
        ("pipe.py:x", "must name a file of Python code.*no regular file"),
        ("own.py:beside", "must name a function or a class"),
        ("other.py:springs", "must name a file of Python code.*No such file"),
        ("broken.py:springs", "cannot be run: NameError.*line 2"),
        ("torn.py:springs", "cannot be run: SyntaxError.*line 1"),
    ],
)
def test_a_factory_that_does_not_fit_is_refused(own: Path, name: str, message: str) -> None:
    (own.parent / "broken.py").write_text("\nspring = springs\n", encoding="utf-8")
    (own.parent / "leaving.py").write_text("import sys\nsys.exit()\n", encoding="utf-8")
    os.mkfifo(own.parent / "pipe.py")
    (own.parent / "torn.py").write_text("def springs(\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_system(str(own.parent / name))


def test_options_of_a_factory_are_checked(own: Path) -> None:
    with pytest.raises(InputError, match="option of factory 'springs' must be one of n, seed"):
        load_system(f"{own}:springs", m=3)
    with pytest.raises(InputError, match="valid integer"):
        from_file(f"{own}:springs", n="3")


def test_a_config_may_name_a_factory_and_its_run_goes_on(own: Path, tmp_path: Path) -> None:
    """[system] name = 'file'; the run file knows the code's place, and resumes."""
    own.write_text(
        "from hardware_models import HopfieldNetwork\n"
        "def small(hidden: int = 8, seed: int = 0):\n    return HopfieldNetwork([64, hidden, 10], seed=seed)\n",
        encoding="utf-8",
    )
    short = ("data.train_examples=64", "data.test_examples=32", "optimizer.lr=0.1", "training.epochs=1")
    config = {"system": {"name": "file", "factory": f"{own}:small", "hidden": 6}}
    first = train(config, overrides=short, out=tmp_path / "run.h5")
    longer = train(
        config, overrides=(*short[:3], "training.epochs=2"), resume=tmp_path / "run.h5", out=tmp_path / "two.h5"
    )
    whole = train(config, overrides=(*short[:3], "training.epochs=2"))
    assert longer.metrics["loss"].tolist() == whole.metrics["loss"].tolist()
    trained = load_system(tmp_path / "run.h5")
    assert trained.sizes == (64, 6, 10)
    for name, value in first.system.state_dict().items():
        assert torch.equal(trained.state_dict()[name], value)
    with pytest.raises(InputError, match="hidden"):
        load_system(tmp_path / "run.h5", hidden=9)  # a trained network has the size that it has


@pytest.mark.parametrize("kind", [".pt", ".pth", ".safetensors", ".h5"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_every_kind_of_file(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    """Not a digit is lost: float64 weights make a float64 system."""
    torch.manual_seed(5)
    wanted = HopfieldNetwork([64, 6, 10]).to(dtype)
    file = tmp_path / f"weights{kind}"
    if kind == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(wanted.state_dict(), file)
    elif kind == ".h5":
        from physics_ep.storage.run_file import Run, write_run

        write_run(file, Run(attributes={"config": {}}, state_dict=wanted.state_dict()))
    else:
        torch.save({"state_dict": wanted.state_dict(), "epoch": 3} if kind == ".pth" else wanted.state_dict(), file)
    found = load_system("hopfield", sizes=[64, 6, 10], weights=file)
    assert found.dtype == dtype
    for name, value in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)


class Sly:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("sly-was-here"),))


def test_weights_that_do_not_fit_or_run_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = HopfieldNetwork([64, 6, 10]).state_dict()
    torch.save({n.replace("weight", "w"): v for n, v in state.items()}, "names.pt")
    torch.save(HopfieldNetwork([64, 7, 10]).state_dict(), "shapes.pt")
    torch.save({"weight": Sly()}, "sly.pt")
    torch.save([1, 2], "list.pt")
    Path("torn.pt").write_bytes(Path("names.pt").read_bytes()[:300])
    Path("torn.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    Path("text.csv").write_text("1,2\n", encoding="utf-8")
    for file, message in (
        ("names.pt", "missing: .*weight.*not of the system: "),
        ("shapes.pt", r"of another shape: .* \(7, 64\) in place of \(6, 64\)"),
        ("sly.pt", "code in it is not run"),
        ("list.pt", "must hold tensors by name"),
        ("torn.pt", "cannot be read"),
        ("torn.safetensors", "cannot be read|hold tensors by name"),
        ("text.csv", "must be a file .h5, .safetensors, .pt or .pth"),
        ("none.pt", "which is no file"),
    ):
        with pytest.raises(InputError, match=message):
            load_system("hopfield", sizes=[64, 6, 10], weights=file)
    assert not Path("sly-was-here").exists()


def test_the_former_name_of_the_option_still_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(mlp([64, 6, 10], "relu", seed=4).state_dict(), tmp_path / "w.pt")
    config = tmp_path / "net.toml"
    config.write_text('[system]\nname = "pcn"\nsizes = [64, 6, 10]\n', encoding="utf-8")
    for option in ("--weights", "--checkpoint"):
        assert command("map", config, option, tmp_path / "w.pt", "--json", tmp_path / f"{option}.json") == 0
    assert command("map", config, "--json", tmp_path / "without.json") == 0
    found = [
        json.loads((tmp_path / f"{n}.json").read_text())["layers"] for n in ("--weights", "--checkpoint", "without")
    ]
    assert found[0] == found[1] != found[2]
    capsys.readouterr()
    assert command("map", config, f"--checkpoint={tmp_path / 'none.pt'}") == 2
    assert "weights must be a file of weights" in capsys.readouterr().err

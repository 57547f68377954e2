"""The command `tolerance`, its tables and a scheduler: if these fail, it does not do what its help says, or hours
of a sweep are lost."""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardware_models.devices.model import DeviceModel
from hardware_models.mapping.mapped import map_pcn
from physics_ep import CrossEntropy, SquaredError, cli
from physics_ep.errors import InputError
from physics_ep.placement import threads
from physics_ep.predictive_coding import from_module, mlp
from physics_ep.predictive_coding.layers import told_name
from physics_ep.registry import build_system
from physics_ep.storage.parts import parts_folder
from physics_ep.storage.run_file import Run, write_run
from tests.support.pcn import dense, examples
from tests.support.sweeps import timeless
from validation import gradient_report, open_tolerance, tolerance
from validation.agreement import Agreement, interval
from validation.sweeps.points import Experiment
from validation.sweeps.store import checksum
from validation.sweeps.table import (
    LayerTolerance,
    TolerancePoint,
    ToleranceTable,
    readings,
    reasons,
    tolerance_rows,
)
from validation.sweeps.tolerances import worth_sharing


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["tolerance", *arguments])
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


@pytest.fixture
def network(tmp_path: Path) -> str:
    """TOML file of a tiny network."""
    path = tmp_path / "net.toml"
    path.write_text('[system]\nname = "pcn"\nsizes = [6, 8, 4]\nactivation = "tanh"\n')
    return str(path)


def test_command(network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, the promised command does not do what its help says, or its table and its figures differ."""
    figures, device = tmp_path / "figures.json", tmp_path / "device.json"
    targets = ("transfer", "feedforward", "adaptation")
    DeviceModel(levels=16).to_json(device)
    status, printed, _ = run(
        *(network, "--sweep", "levels=4,none", "--sweep", "programming_noise=0.1", "--beta", "0.01,auto"),
        *("--repeats", "3", "--dtype", "float64", "--batch", "3", "--json", str(figures)),
        *("--csv", str(tmp_path / "sweep.csv"), "--latex", str(tmp_path / "sweep.tex"), "--out"),
        *(str(tmp_path / "sweep.h5"), "--device-model", str(device), "--cost", "cross_entropy"),
        *(
            "--columns",
            "field, value," + ",".join(f"{t} {q}" for t in targets for q in ("1 - cosine", "relative error")),
        ),
        capsys=capsys,
    )
    assert status == 0
    found = json.loads(figures.read_text())
    fields = ["ideal"] * 2 + ["base"] * 2 + ["levels"] * 4 + ["programming_noise"] * 2
    assert [point["field"] for point in found["points"]] == fields
    assert [point["value"] for point in found["points"]][4:8] == [4, 4, None, None]
    assert found["points"][0]["layers"][0]["transfer"]["cosine"] > 0.999
    assert found["config"]["tolerance"]["dtype"] == "float64"
    assert printed.count("programming_noise") == printed.count("\n    0.1 ") == 2
    # No terminal is there whose width would break a figure in two.
    widths = re.findall(r"[±≤](\S*)", printed.replace("±:", "").replace("≤:", ""))
    assert widths
    assert all(re.fullmatch(r"\d(\.\d)?e-\d\d", width) for width in widths)
    for column in ("free", "resid", "n", "s"):
        assert f"\n{column}: " in printed
    assert len(open_tolerance(tmp_path / "sweep.h5").points) == 10
    # Figures that are known to `--json` alone are missing where papers are made.
    latex = (tmp_path / "sweep.tex").read_text()
    assert latex.startswith("% written by physics-ep tolerance\n")
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found["points"]) == latex.count(r"\\") - 1
    for row, point in zip(rows, found["points"], strict=True):
        for target in targets:
            worst = min(point["layers"], key=lambda layer: layer[target]["cosine"])
            assert row[f"{target} layer"] == worst["name"]
            assert float(row[f"{target} 1 - cosine"]) == pytest.approx(1 - worst[target]["cosine"], abs=1e-15)
            assert float(row[f"{target} relative error"]) == worst[target]["relative_error"]
            assert float(row[f"{target} bias"]) == worst[target]["bias"]
            assert f"{target} 1 - cosine & {target} relative error" in latex
    run_file = tmp_path / "run.h5"
    trained = build_system("pcn", sizes=[6, 8, 4], activation="tanh", seed=7)
    write_run(run_file, Run({"kind": "training", "config": {}}, state_dict=trained.state_dict()))
    arguments = (network, "--sweep", "levels=4", "--json", str(figures), "--quiet")
    status, nothing, _ = run(*arguments, "--checkpoint", str(run_file), capsys=capsys)
    assert (status, nothing) == (0, "")
    weights = json.loads(figures.read_text())["config"]["tolerance"]["weights"]
    assert weights == checksum(trained.state_dict()) != found["config"]["tolerance"]["weights"]
    status, layers, _ = run(network, "--sweep", "levels=4", "--verbose", capsys=capsys)
    assert layers.count("\n    4 ") == 4


def test_layers_keep_the_names_of_a_model(tmp_path: Path) -> None:
    """If this fails, a reader of `map` and `tolerance` has to count which layer of the model is 'layers.1'."""

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act, self.head = torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.act(self.first(x)))

    net, x, y = (
        from_module(Named().eval(), torch.rand(1, 5), form="layers"),
        torch.rand(4, 5),
        torch.eye(3)[[0, 1, 2, 0]],
    )
    rows = map_pcn(net, "hopfield", calibration=x).fidelity.layers
    assert [row.label for row in rows] == ["first.weight", "head.weight"]
    assert [row.name for row in rows] == ["layers.0.weight", "layers.1.weight"]
    kept = {"sweeps": {"levels": [4]}, "repeats": 1, "out": tmp_path / "sweep.h5"}
    table = tolerance(net, x, y, SquaredError(), **kept)
    for found in (table, open_tolerance(tmp_path / "sweep.h5")):
        told = {layer.name: layer.told for layer in found.points[0].layers}
        assert told["layers.0.weight"] == "first.weight"
        assert told["layers.1.bias"] == "head.bias"
        assert found.records()[1]["transfer layer"].startswith(("first.", "head."))
    # Two layers of one name, or of none, are told apart by their places.
    net.stack[1].label = "first"
    assert told_name(net.stack, "layers.0.weight") == "layers.0.weight"
    assert told_name(dense(2, width=3).stack, "layers.1.bias") == "layers.1.bias"


def test_live_gates_have_columns_of_their_own() -> None:
    """If this fails, the good figures of held gates stand for a network whose live gates lose half of the
    examples, or those of a point without any equilibrium come from nowhere."""

    def point(*cosines: float, settled: float = 1.0) -> TolerancePoint:
        layers = []
        for k, cosine in enumerate(cosines):
            agreement = Agreement(np.array([cosine]), np.array([k + 0.5]), k + 0.25, math.nan)
            layers.append(LayerTolerance(f"l{k}", agreement, agreement, agreement))
        return TolerancePoint(
            "levels", 4, "auto", 0.1, 1, int(np.isnan(cosines[0])), 0.0, 1, 1.0, 1.0, 0.0, "sweep", tuple(layers),
            settled,
        )  # fmt: skip

    held = point(0.9, 1 + 1e-15)
    points = (replace(held, live=point(0.7, 0.2, settled=0.5)), replace(point(math.nan, math.nan), live=None))
    table = ToleranceTable(points, {}, 2)
    first, last = table.records()
    assert first.keys() == last.keys()
    assert [first[f"transfer layer{gates}"] for gates in ("", ", live gates")] == ["l0", "l1"]
    assert first["adaptation 1 - cosine"] == pytest.approx(0.1)
    assert first["adaptation 1 - cosine, live gates"] == pytest.approx(0.8)
    assert first["feedforward relative error, live gates"] == 1.5
    assert (first["settled"], first["settled, live gates"]) == (1.0, 0.5)
    assert (last["transfer layer"], last["transfer layer, live gates"]) == (None, None)
    assert math.isnan(last["transfer 1 - cosine"])
    assert held.layers[1].transfer.distance == 0
    assert "transfer 1 - cosine, live gates" in table.to_latex(["transfer 1 - cosine, live gates"])
    printed = table.to_latex().splitlines()
    assert r"levels & 4 & held & 0.1 & 0.1 & 100\% \\" in printed
    assert r"levels & 4 & live & 0.8 & 0.8 & 50\% \\" in printed


def test_intervals_stay_where_a_cosine_can_be_and_a_bias_of_zero_is_explained() -> None:
    """The table tells 2.0e-01±9e-01, of which a half is below 0, or an interval of two instances; or a bias of 0
    stands in it as if the device had none."""

    def shown(cosines: list[float], bias: float) -> tuple[list[str], list[str]]:
        found = Agreement(
            np.array(cosines), np.full(len(cosines), 0.3), bias, 0.04 if len(cosines) > 1 else math.nan
        )
        layer = LayerTolerance("w", found, found, found)
        numbers = {"repeats": len(cosines), "unconverged": 0, "residual": 0.0, "sweeps": 1, "seconds": 1.0}
        point = TolerancePoint(
            "base", None, 0.1, 0.1, **numbers, free_share=1, free_error=0, solver="", layers=(layer,)
        )
        table = ToleranceTable((point,), {}, 1)
        columns, (row,) = tolerance_rows(table, verbose=False)
        told = dict(zip(columns, row, strict=True))
        return [told[name].split("\n")[0] for name in ("1-cos", "bias")], readings(table, verbose=False)

    cells, lines = shown([0.7, 0.9], 0.0)
    assert cells == ["2.0e-01", "0"]
    assert [line[:13] for line in lines] == ["Means of fewe", "bias 0: the s"]
    cells, lines = shown([0.79, 0.8, 0.81], 0.1)
    assert cells == ["2.0e-01±2e-02", "1.0e-01"]
    assert [line[0] for line in lines] == ["±"]
    for cosines, end in (([0.7, 0.9, 0.8], "2.0e-01≤4.5e-01"), ([1.0, -1.0, 0.4], "8.7e-01≤2.0e+00")):
        assert shown(cosines, 0.1)[0][0] == end
        assert float(end.split("≤")[1]) == pytest.approx(min(1 - interval(np.array(cosines))[0], 2), rel=0.02)
    cells, lines = shown([-1.0, -0.95, -0.9], 0.1)
    assert cells[0] == "2.0e+00≥1.8e+00"
    assert [line[0] for line in lines] == ["≥"]
    # One instance alone has neither an interval nor a variance that could explain its bias.
    assert shown([0.8], 0.0) == (["2.0e-01", "0.0e+00"], [])


def test_gradients_that_vanish_are_named_and_in_no_number() -> None:
    """Where the exact gradient is zero no cosine exists: a dead unit came out as 0 with an infinite error, and hid
    the layers that do learn; where both were zero, as perfect."""
    net = mlp([6, 5, 4, 3], "relu", seed=2)
    with torch.no_grad():
        net.stack[1].bias.fill_(-50.0)
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(4, 6, generator=generator), torch.arange(4) % 3
    sweeps = {"read_noise": [1e-3], "levels": [16]}
    table = tolerance(net, x, y, CrossEntropy(), sweeps=sweeps, repeats=2, betas=[0.05], gates="held")
    gone = [f"layers.{k}.{part}" for k in (0, 1) for part in ("weight", "bias")] + ["layers.2.weight"]
    for point in table.points:
        assert point.worst_layer("transfer").name == "layers.2.bias"
        assert point.worst_layer("transfer").transfer.relative_error < 0.5
        for layer in point.layers:
            assert (layer.transfer.vanished == point.repeats) == (layer.name in gone), layer.name
            assert math.isnan(layer.transfer.distance) == (layer.name in gone)
            assert math.isnan(layer.transfer.relative_error) == (layer.name in gone)
    for measured in (table.points, (*table.points, *(replace(p, beta=0.01) for p in table.points))):
        (told,) = reasons(measured)  # at several betas too
        assert told.endswith(f"no number tells of them: {', '.join(gone)}.")
    _, rows = tolerance_rows(table, verbose=True)
    assert [row[3].splitlines()[0] for row in rows[:6]][:5] == ["vanishes"] * 5
    assert ", ".join(gone[:2]) in table.to_latex().replace(r"\_", "_")
    with torch.no_grad():  # and where nothing at all flows
        net.stack[2].bias.copy_(torch.tensor([900.0, 0.0, 0.0]))
    still = tolerance(net, x, torch.zeros_like(y), CrossEntropy(), sweeps={"levels": [16]}, repeats=1, betas=[0.05])
    assert reasons(still.points)[0].startswith("vanishes: ")
    assert "no value (--): " in still.to_latex()
    assert len(gradient_report(net, x, torch.zeros_like(y), CrossEntropy(), beta=0.05).zeros) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep", "level=4"], "'level'. Did you mean 'levels'?"),
        (["--sweep", "levels"], "FIELD=VALUE"),
        (["--sweep", "levels=4,"], "FIELD=VALUE"),
        (["--sweep", "levels=four"], "levels must be an integer"),
        (["--sweep", "levels=1"], "levels must be an integer"),
        (["--sweep", "read_noise=nan"], "read_noise must be a finite"),
        (["--sweep", "levels=4", "--sweep", "levels=8"], "named 'levels' twice"),
        (["--sweep", "levels=4", "--repeats", "0"], "repeats must be at least 1"),
        (["--sweep", "levels=4", "--preset", "pmc"], "Did you mean 'pcm'?"),
        (["--sweep", "levels=4", "--beta", "0.1,-1"], "beta must be positive numbers"),
        (["--sweep", "levels=4", "--beta", "0.01,90"], "beta must be below"),
        (["--sweep", "levels=4", "--substrate", "hopfeild"], "Did you mean 'hopfield'?"),
        (["--sweep", "levels=4", "--device-model", "none.json"], "none.json"),
        (["--sweep", "levels=4", "--seed", "-1"], "seed must be"),
        (["--sweep", "levels=4", "--dtype", "bfloat16"], "bfloat16"),
        (["--sweep", "levels=4", "--gates", "half"], "gates must be one of"),
    ],
)
def test_bad_input_ends_in_one_line(
    arguments: list[str], message: str, network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails, a user reads a traceback, or finds half a file."""
    out = tmp_path / "sweep.h5"
    status, _, error = run(network, *arguments, "--out", str(out), capsys=capsys)
    assert (status, error.count("\n")) == (2, 1)
    assert message in error
    assert not out.exists()
    assert not parts_folder(out).exists()


def test_a_network_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """A system that is neither mapped nor held by cells has no devices to sweep."""
    status, _, error = run("langevin-hopfield", "--sweep", "levels=4", capsys=capsys)
    assert status == 2
    assert "NETWORK must be a predictive coding network" in error


def test_a_plain_network_is_on_no_substrate_but_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """A Hopfield network is swept on its own cells, never as if it were mapped."""
    status, printed, _ = run("hopfield", "--sweep", "levels=4", "--repeats", "1", capsys=capsys)
    assert status == 0
    assert "implicit differentiation" in printed
    status, _, error = run("hopfield", "--sweep", "levels=4", "--substrate", "hopfield", capsys=capsys)
    assert (status, error.count("\n")) == (2, 1)
    assert "Argument substrate must be left out for a HopfieldNetwork" in error


def test_interruption_tells_how_to_go_on(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails, Ctrl-C ends in a traceback, or the user does not know that the points are kept."""
    out = str(tmp_path / "sweep.h5")
    arguments = (network, "--sweep", "levels=4,8", "--out", out)
    measure, calls = Experiment.measure, 0

    def stopped(self: Experiment, device: Any, beta: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return measure(self, device, beta)

    monkeypatch.setattr(Experiment, "measure", stopped)
    status, _, error = run(*arguments, capsys=capsys)
    assert (status, error.count("\n")) == (130, 1)
    assert f"interrupted after 2 of 3 points; the same command with --out {out} --resume goes on" in error
    status, _, error = run(*arguments, "--resume", capsys=capsys)
    assert (status, calls) == (0, 4)


# -- a scheduler --------------------------------------------------------------------------------------------------


def test_scheduler_without_distributed(
    network: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails, an optional package that is missing ends in a traceback."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    status, _, error = run(network, "--sweep", "levels=4", "--scheduler", "tcp://127.0.0.1:1", capsys=capsys)
    assert (status, error.count("\n")) == (2, 1)
    assert "pip install 'physics-ep[distributed]'" in error


@pytest.mark.slow
def test_points_on_dask_workers(tmp_path: Path) -> None:
    """If this fails, workers measure something else than this process does."""
    distributed = pytest.importorskip("distributed", reason="needs the extra 'distributed'")
    from validation.sweeps import workers as sweep_workers

    options = {"sizes": [6, 8, 4], "activation": "tanh", "seed": 3}
    net = build_system("pcn", **options).double()
    with torch.no_grad():
        net.stack[0].weight.mul_(1.1)  # the weights, not the recipe, must reach the workers
    x, y = examples((6,), 4, SquaredError(), 4)
    given: dict[str, Any] = {
        "sweeps": {"levels": [4], "read_noise": [1e-3]},
        "repeats": 2,
        "network": {"name": "pcn", "options": options},
    }
    here = tolerance(net, x, y, SquaredError(), **given)
    experiment = Experiment(
        net,
        x,
        y,
        SquaredError(),
        substrate="hopfield",
        scheme=None,
        gates="held",
        repeats=2,
        seed=0,
        thread_count=1,
    )
    job = sweep_workers.recipe(experiment, given["network"], DeviceModel(), "key", None)

    def pieces(value: Any) -> list[Any]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return [value] if inner is None else [piece for part in inner for piece in pieces(part)]

    assert all(isinstance(v, str | int | np.ndarray | None) for v in pieces(job))
    quiet = {"dashboard_address": ":0", "silence_logs": 50}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **quiet) as cluster:
        out = tmp_path / "sweep.h5"
        there = tolerance(
            net, x, y, SquaredError(), **given, scheduler=cluster.scheduler_address, out=out, resume=True
        )
        with pytest.raises(InputError, match="network must be given with scheduler"):
            tolerance(net, x, y, SquaredError(), scheduler=cluster.scheduler_address)
        with pytest.raises(InputError, match="beta must be below"):
            tolerance(net, x, y, SquaredError(), **given, scheduler=cluster.scheduler_address, betas=[90.0])
    assert timeless(there) == timeless(here) == timeless(open_tolerance(out))


@pytest.mark.slow
def test_local_processes_give_the_same_bits(tmp_path) -> None:
    """Two processes: every number but the seconds is that of one; a bad beta is told in the caller's words, and
    nobody is left behind."""
    options = {"sizes": [6, 8, 4], "activation": "tanh", "seed": 3}
    net = build_system("pcn", **options).double()
    x, y = examples((6,), 4, SquaredError(), 4)
    given: dict[str, Any] = {
        "network": {"name": "pcn", "options": options},
        "sweeps": {"levels": [4, 64], "read_noise": [1e-4]},
        "repeats": 2,
    }
    others = set(multiprocessing.active_children())
    with threads(1):
        here = tolerance(net, x, y, SquaredError(), **given)
    out = tmp_path / "sweep.h5"
    there = tolerance(net, x, y, SquaredError(), **given, workers=2, out=out)
    assert timeless(there) == timeless(here) == timeless(open_tolerance(out))
    with pytest.raises(InputError, match="beta must be below"):
        tolerance(net, x, y, SquaredError(), **given, workers=2, betas=[90.0])
    assert set(multiprocessing.active_children()) <= others
    with pytest.raises(InputError, match="workers must be 1 without network"):
        tolerance(net, x, y, SquaredError(), sweeps={"levels": [4]}, workers=2)
    with pytest.raises(InputError, match="workers must be an integer of at least 1"):
        tolerance(net, x, y, SquaredError(), sweeps={"levels": [4]}, workers=0)


def test_processes_where_they_pay() -> None:
    """Small sweeps stay in this process; large ones take the cores that memory allows."""
    small, large = mlp([4, 8, 3]), mlp([2000, 2000, 10])
    assert worth_sharing(small, 1000) == 1
    assert 1 <= worth_sharing(large, 1000) <= (os.cpu_count() or 1)

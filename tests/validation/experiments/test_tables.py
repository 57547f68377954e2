"""Tables of experiments that are kept row by row. If these fail, a mean is over rows of two recipes, or over fewer
than it says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp
from validation.experiments import copies, photographs
from validation.experiments.causes import _interval, _spread
from validation.experiments.tables import median, read_rows


def test_rows_are_of_the_recipe_that_is_asked_for(tmp_path: Path) -> None:
    """What is damaged, something else, or made otherwise is refused; tuples are lists in a file."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"sizes": [3, 4], "rows": [{"key": "a", "seed": 0}]}))
    for recipe in ({"sizes": (3, 4)}, {}, None):
        assert read_rows(path, "things", ("key", "seed"), recipe) == [{"key": "a", "seed": 0}]
    for keys, recipe in ((("key", "gap"), None), (("key",), {"sizes": (3, 5)}), (("key",), {"beta": 1.0})):
        with pytest.raises(InputError, match="out must hold a table of things"):
            read_rows(path, "things", keys, recipe)
    for text in ("", "[]", '{"rows": 3}', '{"rows": [3]}', "{}"):
        path.write_text(text)
        with pytest.raises(InputError, match="out must hold a table of things, or none"):
            read_rows(path, "things", ("key",))


def test_a_figure_tells_of_how_many_rows_it_is() -> None:
    """Rows without a number are in no median, mean or quartile, and are counted."""
    assert median([1.0, 2.0, 6.0], "{:.0f}") == "2"
    assert median([1.0, math.nan, None, 2.0, 6.0], "{:.0f}") == "2 (3 of 5)"
    assert median([1.0, math.inf, 2.0, 3.0], "{:.1f}", quartiles=True) == "2.0 (1.5..2.5) (3 of 4)"
    assert median([math.nan], "{:.0f}") == "none"
    assert _spread([0.5, None, 0.7]) == "60 (50..70) (2 of 3)"
    assert _interval([0.5, 0.5, math.nan, 0.5]) == "50.0 +- 0.0 (3 of 4)"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A table of copies on data of a few examples, whose rows are not measured."""
    x = torch.rand(9, 64, generator=torch.Generator().manual_seed(0))
    data = SimpleNamespace(train_x=x[:5], train_y=torch.arange(5), test_x=x[5:], test_y=torch.arange(4))
    found = SimpleNamespace(net=mlp([64, 10], "relu", seed=0).double(), calibrations=[], train_x=x[:5])

    def mapped(*_: Any, calibration: torch.Tensor) -> None:
        found.calibrations.append(calibration)

    def measured(case: copies.CopiesCase, instance: int, *_: Any) -> copies.OneDevice:
        return copies.OneDevice(case.key, instance, 1.0, 0.0, "sweep", 1, {}, 0.0)

    monkeypatch.setattr(copies, "load_dataset", lambda _: data)
    monkeypatch.setattr(copies, "network_of", lambda *_: found.net)
    monkeypatch.setattr(copies, "map_pcn", mapped)
    monkeypatch.setattr(copies, "measured", measured)
    return found


def copies_of(folder: Path, instances: int = 1, case: int = 0) -> list[dict[str, Any]]:
    return copies.measure(folder, instances, [list(copies.cases())[case]], lambda _: None)


def test_copies_are_calibrated_by_training_examples(table: Any, tmp_path: Path) -> None:
    """Without this, a network is tested on examples that have set its scales."""
    copies_of(tmp_path)
    assert torch.equal(table.calibrations[0], table.train_x.double())


def test_a_table_of_copies_goes_on_with_its_own_recipe_and_networks(table: Any, tmp_path: Path) -> None:
    """Rows of another calibration, or of a network that has been taught anew, are in no median with new ones; what
    the table tells of a network stays where another call has no use for it."""
    path = tmp_path / "copies.json"
    copies_of(tmp_path)
    assert len(copies_of(tmp_path, 2)) == 2
    told = json.loads(path.read_text())["networks"]
    assert list(told) == ["tanh"]
    for name, value in {"calibration": "test examples", "beta": 0.02}.items():
        path.write_text(json.dumps({"recipe": {**copies.RECIPE, name: value}, "networks": told, "rows": []}))
        with pytest.raises(InputError, match="table of copies of this recipe"):
            copies_of(tmp_path)
    path.unlink()
    copies_of(tmp_path)
    copies_of(tmp_path, case=-1)
    assert list(json.loads(path.read_text())["networks"]) == ["tanh", "relu"]
    with torch.no_grad():
        next(table.net.parameters())[0, 0] += 1e-9
    kept = path.read_text()
    with pytest.raises(InputError, match=r"out must hold the network tanh\.h5 of the rows that are there"):
        copies_of(tmp_path, 2)
    assert path.read_text() == kept


def test_photographs_go_on_with_the_same_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rows of other photographs, or of another size, are no instances of these; and scales are not set by those
    whose gradients are judged."""
    x, y = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(5)
    calibrations: list[torch.Tensor] = []
    monkeypatch.setattr(photographs, "map_pcn", lambda *_, calibration: calibrations.append(calibration))
    net: Any = None

    def rows(x: torch.Tensor, y: torch.Tensor, instances: int = 1) -> list[dict[str, Any]]:
        chosen = photographs.cases()[:1]
        return photographs.instances_of("substrates", chosen, tmp_path, instances, net, x, y, lambda _: {})

    rows(x, y)
    assert len(rows(x, y, 2)) == 2
    assert torch.equal(calibrations[0], x[2:4])
    assert torch.equal(photographs.calibrating(x[:2]), x[:2])
    for others in ((x + 1e-3, y), (x[:, :, :2, :2], y), (x, y.flip(0)), (x[:3], y[:3])):
        with pytest.raises(InputError, match="table of this experiment of this recipe"):
            rows(*others)


def test_references_are_of_the_examples_that_an_estimate_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, EP's gradient of some examples is held against the exact one of as many others."""
    seen: list[torch.Tensor] = []
    x, y = torch.arange(4.0)[:, None], torch.arange(4)
    free = SimpleNamespace(converged=torch.tensor([True, False, True, True]))
    step = SimpleNamespace(used=torch.tensor([False, True, True]))
    mapped: Any = SimpleNamespace(system=SimpleNamespace(has_gates=False), estimate=lambda *_, **__: ({}, step))
    told = SimpleNamespace(share=0.75, error=0.0, solver="sweep")
    monkeypatch.setattr(copies, "relax", lambda *_: free)
    monkeypatch.setattr(copies, "of_equilibrium", lambda *_: told)
    monkeypatch.setattr(copies, "_references", lambda _, x, *__: seen.append(x) or {})
    assert copies.measured(next(iter(copies.cases())), 0, mapped, x, y).settled == 2
    assert seen[0].flatten().tolist() == [2.0, 3.0]


def test_the_gain_of_a_loop_is_that_of_its_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fed back changes by three times as much from pass to pass: the gain is 3, and not a third."""

    class Sweep:
        def __init__(self, *_: Any) -> None:
            self.images, self.change = [torch.zeros(1, 2)], 1.0

        def evaluate(self) -> None:
            self.images, self.change = [self.images[0] + self.change], 3 * self.change

        def advance(self, _: torch.Tensor) -> None:
            pass

    class System:
        dtype = torch.float64

        def double(self) -> System:
            return self

        def prepare(self, _: torch.Tensor) -> None:
            pass

        def phase(self, *_: Any) -> Any:
            return SimpleNamespace(nudged=lambda _: None, start=lambda: None)

    monkeypatch.setattr(photographs, "PairedSweep", Sweep)
    monkeypatch.setattr(photographs, "relax", lambda *_, **__: SimpleNamespace(state=None))
    mapped: Any = SimpleNamespace(system=System())
    assert photographs.loop_gain(mapped, torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)) == pytest.approx(3)

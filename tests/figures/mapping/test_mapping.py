"""The figures of mapped networks show what was measured, in a form that can be printed.

Each test's docstring says what is wrong with the figures if it fails.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from figures.catalogue import FIGURES, Request, draw, find, suited
from figures.mapping.depth import PUBLISHED, DepthCosts, depth_costs, draw_depth_costs
from figures.mapping.labels import field_told
from figures.mapping.paired_unit import draw_paired_unit
from figures.mapping.signature import draw_signature, signature
from figures.mapping.tolerance import (
    SHOWN,
    LayerCosines,
    TolerancePanel,
    beta_choices,
    draw_best_beta,
    draw_layer_cosines,
    layer_cosines,
    small_sweep,
)
from figures.pcn.networks import dense_network
from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.mapped import SUBSTRATES
from physics_ep import CrossEntropy
from physics_ep.cli import main
from physics_ep.errors import InputError
from tests.support import looks
from validation import best_beta, open_tolerance, tolerance
from validation.agreement import Agreement
from validation.sweeps.table import LayerTolerance, TolerancePoint, ToleranceTable
from validation.theory.mapping_limits import (
    COPIES,
    copy_damage,
    disturbance_decay,
    mismatch_limit,
    random_network,
)

pytestmark = pytest.mark.full

PLUG_IN = """
from dataclasses import dataclass
from hardware_models import DeviceModel
from hardware_models.devices.fields import FRACTION, imperfection
from hardware_models.mapping.mapped import substrate_class

@dataclass(frozen=True, kw_only=True)
class Sag(DeviceModel):
    supply_sag: float = imperfection(0.0, FRACTION, "Supply sag", "fraction", short="sagged supplies")

class Sagging(substrate_class("hopfield")):
    device_class = Sag
"""

SWEEPS = {"levels": [128, 8], "programming_noise": [0.01, 0.1], "dac_bits": [None, 6]}


@pytest.fixture(scope="module")
def subject():
    """Three tanh layers, trained a little."""
    return dense_network("three tanh layers", "tanh", 1.0, depth=3, steps=20, examples=4)


@pytest.fixture(scope="module")
def costs():
    return depth_costs((1, 2, 4), (0.5, 6**0.5), width=16, instances=2)


@pytest.fixture(scope="module")
def sweep(subject, tmp_path_factory):
    """A sweep file."""
    path = tmp_path_factory.mktemp("sweep") / "sweep.h5"
    tolerance(subject.system, subject.x, subject.y, subject.cost, sweeps=SWEEPS, repeats=3, out=path)
    return path


@pytest.fixture(scope="module")
def choices(subject):
    return beta_choices(subject, (1e-4, 1e-3), repeats=3)


def vgg_like(fields: int, layers: int) -> LayerCosines:
    """As many panels and layers as a table of VGG10 has, with points that found no equilibrium."""
    generator = np.random.default_rng(0)
    names = ["levels", "time_constant_mismatch", "spacing", "no_name_yet", "read_noise", "amplifier_offset"]
    kinds = [(16, 64, 256), (-0.01, 0.01, 0.02), ("linear", "log", None), (0, 1, 2), (1e-9, 1e-7, 1e-5)]
    panels = []
    for k in range(fields):
        middle = 10 ** generator.uniform(-6, 0, (3, layers))
        cosine = {target: np.stack([middle, middle / 2, middle * 2], -1) for target in SHOWN}
        lost = np.zeros(3)
        if k == 1:
            lost[2] = 1
            for values in cosine.values():
                values[2] = np.nan
        panels.append(TolerancePanel(names[k % len(names)], kinds[k % len(kinds)], cosine, lost))
    reference = {target: np.full(layers, 1e-6) for target in SHOWN}
    return LayerCosines(tuple(f"layers.{k}.weight" for k in range(layers)), "auto", tuple(panels), reference)


@pytest.fixture(scope="module")
def drawn(costs, sweep, choices):
    """This module's figures, from small data; a warning of matplotlib is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {
            "paired_unit": draw_paired_unit(),
            "settling_depth": draw_depth_costs(costs),
            "tolerance_layers": draw_layer_cosines(layer_cosines(open_tolerance(sweep))),
            "tolerance_layers of VGG10": draw_layer_cosines(vgg_like(10, 10)),
            "tolerance_layers of one layer": draw_layer_cosines(vgg_like(2, 1)),
            "best_beta": draw_best_beta(choices),
        }


# -- what is shown ------------------------------------------------------------------------------------------------


def test_depth_costs_are_those_of_independent_calls(costs):
    """Points of the figure are of another depth, gain, kind of unit or instance than they say."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 20, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 10, (4,), generator=generator)
    soft, hard = (map_pcn(random_network(4, a, 6**0.5, width=16)) for a in ("softplus", "tanh"))
    assert costs.decay[1, 2] == disturbance_decay(soft, x)
    assert costs.slack[1, 2] == pytest.approx(mismatch_limit(hard, x[:2]), rel=0.06)
    assert np.isinf(costs.slack[0]).all()
    net = random_network(4, "tanh", 3**0.5, width=16)
    assert costs.damage[2, 2, 1] == copy_damage(net, x, y, CrossEntropy(), COPIES, 0.01, seed=1)
    assert costs.estimate[2] * 1e-6 == pytest.approx(hard.fidelity.nudged_settling_time)


@pytest.mark.slow
def test_curves_are_the_costs(drawn, costs):
    """The drawing swaps gains or cases, shows one layer's rounding as damage, or hides what was published."""
    settling, slack, damage = drawn["settling_depth"].axes
    lines = {line.get_label(): line for ax in (settling, slack, damage) for line in ax.lines}
    np.testing.assert_array_equal(lines["estimate, 2$L$ equal stages"].get_ydata(), costs.estimate)
    by_gain = {line.get_label(): line.get_ydata() for line in settling.lines}
    np.testing.assert_array_equal(by_gain["gain $\\sqrt{6}$"], costs.decay[1])
    assert dict(zip(*lines["published, large gain"].get_data(), strict=True)) == {2: PUBLISHED[2]}
    found = np.isfinite(costs.slack[1])
    np.testing.assert_array_equal(slack.lines[0].get_ydata(), costs.slack[1][found])
    assert any("gain 0.5" in text.get_text() and "no limit" in text.get_text() for text in slack.texts)
    copies = lines["three copies"]
    assert copies.get_xdata().tolist() == [2, 4]
    np.testing.assert_allclose(copies.get_ydata(), np.exp(np.log(costs.damage[2, 1:]).mean(1)))


def test_copies_without_equilibrium_are_marked(costs):
    """A circuit that does not settle looks as if it had not been tried."""
    lost = costs.damage.copy()
    lost[2, 2, 0] = np.nan
    damage = draw_depth_costs(replace(costs, damage=lost)).axes[2]
    marks = [line for line in damage.lines if line.get_label() == "three copies: no equilibrium"]
    assert [line.get_xdata().tolist() for line in marks] == [[4]]


def test_layers_are_those_of_the_table(drawn, sweep):
    """Lines are of another layer, target or value than they say, biases are among them, or values are unsorted."""
    table = open_tolerance(sweep)
    data = layer_cosines(table)
    assert data.layers == tuple(f"layers.{k}.weight" for k in range(3))
    assert [panel.field for panel in data.panels] == list(SWEEPS)
    assert data.panels[0].values == (8, 128)
    assert data.panels[2].values == (None, 6)
    for point in table.of("programming_noise"):
        panel = data.panels[1]
        n = panel.values.index(point.value)
        for k, name in enumerate(data.layers):
            layer = next(each for each in point.layers if each.name == name)
            for target in SHOWN:
                agreement = getattr(layer, target)
                middle, near, far = panel.cosine[target][n, k]
                assert middle == 1 - agreement.cosine
                half = agreement.cosine_half_width
                assert 0 < near < middle < far
                # To first order the interval of the cosine itself.
                assert near * far == pytest.approx(middle**2)
                assert np.log(far / middle) == pytest.approx(half / middle)
    ax = drawn["tolerance_layers"].axes[1]
    curves = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linestyle() != ":"][1:]
    assert len(curves) == 6
    for curve, (target, k) in zip(curves, itertools.product(SHOWN, range(3)), strict=True):
        np.testing.assert_allclose(curve.get_ydata(), data.panels[1].cosine[target][:, k, 0])
    # What one repeat shows has no interval; the ideal device is the reference.
    assert np.isnan(data.panels[0].cosine["transfer"][..., 1:]).all()
    ideal = table.of("ideal")[0].layers
    wanted = [1 - layer.adaptation.cosine for layer in ideal if layer.name in data.layers]
    np.testing.assert_array_equal(data.reference["adaptation"], wanted)


def test_a_figure_tells_what_a_plug_in_says_of_its_imperfection(tmp_path, monkeypatch):
    """A sweep's file is drawn with the bare name of a field ("value") where its substrate, from a package that
    nothing has imported yet, declares a label and a unit. Or two instances have a band, or one is beyond 2."""
    (tmp_path / "saggers.py").write_text(PLUG_IN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(SUBSTRATES, "sagging", "saggers:Sagging")
    cosines = ([1 - 1e-6, 1 - 2e-6, 1 - 1.5e-6], [0.99, -0.5, 0.3], [0.99, -0.5])
    steady, wide, two = (Agreement(np.array(c), np.zeros(len(c)), 0.0, 0.0) for c in cosines)

    def point(field, value, found):
        layers = (LayerTolerance("0.weight", found, found, found),)
        return TolerancePoint(field, value, 0.1, 0.1, 3, 0, 0.0, 1, 1.0, 1.0, 0.0, "sweep", layers)

    points = [point("ideal", None, steady), point("supply_sag", 0.1, steady), point("supply_sag", 0.2, wide)]
    sagging = {"tolerance": {"substrate": "sagging"}}
    alone = layer_cosines(ToleranceTable((points[0], point("supply_sag", 0.2, two)), sagging, 2))
    assert np.isnan(alone.panels[0].cosine["transfer"][-1, 0, 1:]).all()
    data = layer_cosines(ToleranceTable(tuple(points), sagging, 3))
    middle, near, far = np.moveaxis(data.panels[0].cosine["transfer"][:, 0], -1, 0)
    assert middle[1] == 1 - wide.cosine
    assert far[1] == 2.0
    np.testing.assert_allclose(near * np.where(far < 2, far, np.nan), [middle[0] ** 2, np.nan])
    ax = draw_layer_cosines(data).axes[0]
    assert ax.get_xlabel().replace("\n", " ") == "Supply sag (fraction)"
    assert ax.get_ylim()[1] <= 8
    maps = draw_signature(signature({"sagging": points}))
    assert "sagged supplies  0.1" in [label.get_text() for label in maps.axes[0].get_yticklabels()]
    # A file outlives the package that its substrate came with.
    assert field_told("supply_sag", ["gone"]).label == "Supply sag"
    assert field_told("unheard_of", ["hopfield"]) is None


def test_points_without_equilibrium_are_marked(drawn):
    """A device on which nothing settles looks as if it had not been tried."""
    panel = drawn["tolerance_layers of VGG10"].axes[1]
    marks = [line for line in panel.lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in marks] == [[2.0]]
    (legend,) = drawn["tolerance_layers of VGG10"].legends
    assert "some without equilibrium" in [text.get_text() for text in legend.get_texts()]


def test_small_sweep_is_a_sweep(subject):
    """Without a file, something else than a tolerance sweep of the network is drawn."""
    found = layer_cosines(small_sweep(subject, {"stuck_off": [0.1]}, repeats=2))
    again = tolerance(subject.system, subject.x, subject.y, subject.cost, sweeps={"stuck_off": [0.1]}, repeats=2)
    np.testing.assert_array_equal(
        found.panels[0].cosine["transfer"], layer_cosines(again).panels[0].cosine["transfer"]
    )


def test_best_beta_is_that_of_the_theory(drawn, choices, subject):
    """The curve, the fits or the two best betas are not those of `best_beta`."""
    device = DeviceModel(read_noise=1e-3)
    found = best_beta(subject.system, subject.x, subject.y, subject.cost, device=device, repeats=3)
    panel = choices.panels[1]
    assert (panel.read_noise, panel.predicted, panel.measured) == (1e-3, found.predicted, found.measured)
    np.testing.assert_array_equal(panel.squared_biases, found.biases**2)
    assert panel.bias_exponent == pytest.approx(2, abs=0.1)
    assert panel.variance_exponent == pytest.approx(-2, abs=0.05)
    ax = drawn["best_beta"].axes[1]
    lines = {line.get_label().split(":")[0]: line for line in ax.lines}
    np.testing.assert_array_equal(lines["measured, bias and noise together"].get_ydata(), found.squared_errors)
    assert lines["best $\\beta$, predicted"].get_xdata()[0] == found.predicted
    assert lines["best $\\beta$, measured"].get_xdata()[0] == found.measured
    beta, total = lines["sum of the two laws"].get_data()
    law = found.bias_coefficient**2 * beta**4 + found.variance_coefficient / beta**2
    np.testing.assert_allclose(total, law)
    assert beta[np.argmin(total)] == pytest.approx(found.predicted, rel=0.05)


# -- how it looks -------------------------------------------------------------------------------------------------


def test_charts_meet_the_demands(drawn):
    """A chart lacks a label or unit, or its series look the same in grey."""
    charts = {name: figure for name, figure in drawn.items() if name != "paired_unit"}
    looks.every_axis_is_labelled_with_its_unit(charts)
    looks.series_differ_without_colour(charts)


def test_legends_leave_the_data_alone(drawn):
    """A legend covers data."""
    looks.legends_leave_the_data_alone({name: figure for name, figure in drawn.items() if name != "paired_unit"})


test_nothing_overlaps_in_a_column = looks.nothing_overlaps_in_a_column


def test_texts_do_not_overlap(drawn):
    """Words lie on words, or beyond the page."""
    for name, figure in drawn.items():
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in written(figure)]
        assert len(boxes) > 5
        for words, box in boxes:
            assert box.x0 >= -1, (name, words)
            assert box.y0 >= -1, (name, words)
            assert box.x1 <= figure.bbox.x1 + 1, (name, words)
            assert box.y1 <= figure.bbox.y1 + 1, (name, words)
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert min(width, height) < 1.5, (name, one, other)


def written(figure):
    """All words of a figure, without labels of ticks beyond the limits."""
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend() is not None)]
    found = [text for legend in legends for text in legend.get_texts()]
    for ax in figure.axes:
        found += ax.texts
        if not ax.axison:
            continue
        found += [ax.title, ax.xaxis.label, ax.yaxis.label]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if low <= tick.get_loc() <= high:
                    found += [tick.label1, tick.label2]
    return [text for text in found if text.get_visible() and text.get_text()]


# -- files and runs -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_are_written_without_warnings(drawn, tmp_path):
    """Saving warns of missing glyphs, of a layout that does not fit, or of its data; or a file is wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        looks.each_figure_is_written_thrice(
            {name: figure for name, figure in drawn.items() if " " not in name}, tmp_path
        )


@pytest.mark.slow
def test_command_draws_a_sweep_file(sweep, tmp_path, capsys):
    """`figure all --from SWEEP.h5` draws other figures, or none."""
    assert [entry.name for entry in suited(sweep)] == ["tolerance_layers", "signature"]
    with pytest.raises(SystemExit) as stop:
        main(["figure", "all", "--from", str(sweep), "--out", str(tmp_path)])
    assert stop.value.code == 0
    assert [Path(path).name for path in capsys.readouterr().out.split()] == [
        f"{name}.{form}" for name in ("tolerance_layers", "signature") for form in ("pdf", "png", "svg")
    ]
    request = Request(sweep)
    again = draw(find("tolerance-layers"), request)
    assert again.data["layers"] == layer_cosines(open_tolerance(sweep)).layers


def test_files_that_do_not_fit_are_told(sweep, subject):
    """A sweep is drawn as if it were a trained network, or an ideal device as if it were a sweep."""
    with pytest.raises(InputError, match="no trained system"):
        draw(find("best_beta"), Request(sweep))
    with pytest.raises(InputError, match="left out for settling_depth"):
        draw(find("settling_depth"), Request(sweep))
    table = tolerance(subject.system, subject.x, subject.y, subject.cost, repeats=1)
    with pytest.raises(InputError, match="sweep over some field"):
        layer_cosines(table)


def test_all_are_in_the_catalogue(drawn):
    """A figure of this module cannot be asked for."""
    names = {name.split()[0].rstrip(",") for name in drawn}
    assert names <= {entry.name for entry in FIGURES}
    assert isinstance(draw(find("paired_unit"), Request()).data, dict)
    assert DepthCosts.__dataclass_fields__.keys() >= {"decay", "slack", "damage"}


def test_layers_have_the_names_of_the_model_and_say_where_no_gradient_is(tmp_path):
    """Names beside the scale are numbers, adaptation is missing, or a dead layer is an empty place unexplained."""
    nothing = Agreement(np.array([np.nan]), np.array([np.inf]), np.nan, np.nan)
    steady, other = (Agreement(np.array([c]), np.zeros(1), 0.0, np.nan) for c in (1 - 1e-6, 1 - 1e-4))
    layers = (
        LayerTolerance("layers.0.weight", nothing, nothing, nothing, "stem.0.weight"),
        LayerTolerance("layers.1.weight", steady, steady, other, "head.weight"),
        LayerTolerance("layers.1.bias", steady, steady, other, "head.bias"),
    )
    points = tuple(
        TolerancePoint(field, value, 0.1, 0.1, 1, 0, 0.0, 1, 1.0, 1.0, 0.0, "sweep", layers)
        for field, value in (("ideal", None), ("levels", 4), ("levels", 16))
    )
    data = layer_cosines(ToleranceTable(points, {"tolerance": {"substrate": "hopfield"}}, 3))
    assert data.layers == ("stem.0.weight", "head.weight")
    assert data.zeros == ("stem.0.weight",)
    np.testing.assert_allclose(data.panels[0].cosine["adaptation"][:, 1, 0], 1e-4, rtol=1e-9)
    figure = draw_layer_cosines(data)
    figure.canvas.draw()
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words[0].startswith("transfer: ")
    assert words[1].startswith("adaptation: ")
    assert words[-1] == "* exact gradient zero but for rounding"
    assert [line.get_linestyle() for line in legend.get_lines()[:2]] == ["-", "--"]
    bar = figure.axes[-1]
    assert [label.get_text() for label in bar.get_yticklabels()] == ["stem.0 *", "head"]

"""Results as tables. If these fail, a table for a paper has other numbers than the result."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from hardware_models import HopfieldNetwork
from hardware_models.mapping import map_pcn
from physics_ep import CrossEntropy, SquaredError, open_run, relax, train
from physics_ep.command_options import Report
from physics_ep.errors import InputError, counted, unknown_name
from physics_ep.predictive_coding import from_sequential, mlp
from physics_ep.tabular import Tabular, epochs_for_paper, epochs_of, known_columns
from tests.support.systems import batch
from validation import gradient_report, tolerance
from validation.tables import captioned, labelled


@dataclass(frozen=True)
class Rows(Tabular):
    found: tuple[dict[str, Any], ...]

    def records(self) -> list[dict[str, Any]]:
        return list(self.found)


class Cells(HTMLParser):
    """The texts of a table's cells, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_a_report_is_a_frame_and_a_table_for_a_paper() -> None:
    x, y = batch(5, 3, 4)
    report = gradient_report(HopfieldNetwork([5, 4, 3], "tanh").double(), x, y, SquaredError(), beta=1e-3)
    frame = report.to_frame()
    assert frame["cosine"].tolist() == [row.cosine for row in report.rows]
    assert frame["parameter"].tolist() == [row.name for row in report.rows]
    latex = report.to_latex(["parameter", "cosine", "relative error"], caption="EP & the oracle")
    for part in (r"\toprule", r"\bottomrule", r"EP \& the oracle", "layers.0.weight"):
        assert part in latex
    assert latex.count(r"\\") == 1 + len(report.rows)
    named = report.to_latex(["parameter", "cosine"], caption="EP", label="tab:ep_1")
    assert named.index(r"\caption{EP}") < named.index(r"\label{tab:ep_1}") < named.index(r"\begin{tabular}")
    assert r"\label" not in latex
    with pytest.raises(InputError, match="label must be of letters, digits"):
        report.to_latex(label="tab:{ep}")
    assert captioned("runs/mine.h5", "gradients of layers") == "Gradients of layers"
    assert captioned("vgg10", "gradients of layers") == "vgg10: gradients of layers"
    assert labelled("results/my layers.tex") == "tab:my-layers"
    with pytest.raises(InputError, match=r"columns must be one of.*Did you mean .cosine."):
        report.to_latex(["cosines"])
    cells = Cells()
    cells.feed(report._repr_html_())
    assert len(cells.rows) == 1 + len(report.rows)
    assert cells.rows[0] == list(frame.columns)
    assert float(cells.rows[1][2]) == pytest.approx(report.rows[0].cosine, rel=1e-3)


def test_live_gates_have_columns_of_their_own() -> None:
    x, y = torch.rand(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    report = gradient_report(mlp([5, 8, 3], "relu"), x, y, CrossEntropy(), gates="both")
    frame = report.to_frame()
    assert report.live is not None
    assert frame["cosine, live gates"].tolist() == [row.cosine for row in report.live.rows]


@pytest.mark.full
def test_trainings_runs_mappings_sweeps_and_states(tmp_path) -> None:
    small = ("training.epochs=2", "data.train_examples=64", "data.test_examples=32", "system.sizes=[64, 8, 10]")
    result = train("pcn-digits", overrides=small, out=tmp_path / "run.h5")
    frame = result.to_frame()
    assert frame["epoch"].tolist() == [1, 2]
    assert frame["loss"].tolist() == result.metrics["loss"].tolist()
    pandas.testing.assert_frame_equal(open_run(tmp_path / "run.h5").to_frame(), frame, check_like=True)
    net, x = mlp([5, 8, 3], "tanh"), torch.rand(4, 5)
    fidelity = map_pcn(net, "hopfield", calibration=x).fidelity
    assert fidelity.to_frame()["cells"].tolist() == [layer.cells for layer in fidelity.layers]
    y = torch.tensor([0, 1, 2, 0])
    table = tolerance(net, x, y, CrossEntropy(), sweeps={"programming_noise": [0.01]}, repeats=2)
    assert table.to_frame()["field"].tolist() == [point.field for point in table.points]
    found = relax(net, x)
    assert found.to_frame()["residual"].tolist() == found.residual.tolist()
    for shown in (result, open_run(tmp_path / "run.h5"), fidelity, table, found):
        html = shown._repr_html_()
        assert html.startswith("<table>")
        assert ">nan<" not in html
        assert len(repr(shown).splitlines()) == 1
        assert len(read_latex(shown.to_latex())[0]) <= 6  # what a column of 85 mm holds


def test_signs_and_numbers_as_latex_has_them() -> None:
    """Read back by pandas, the table of plain numbers is the frame; others are as a paper has them."""
    rows = Rows(({"a_1": "50 % & #{x}", "p": 1.234e-7, "n": 12}, {"a_1": "~^\\", "p": float("nan"), "n": None}))
    latex = rows.to_latex()
    assert r"a\_1" in latex
    assert r"50 \% \& \#\{x\}" in latex
    assert r"$1.23 \cdot 10^{-7}$" in latex
    assert rows._repr_html_().count("<tr>") == 3
    assert "&amp;" in rows._repr_html_()
    plain = Rows(tuple({"k": k, "v": k / 7} for k in range(100)))
    lines = [line.removesuffix(r" \\") for line in plain.to_latex(digits=6).splitlines() if line.endswith(r"\\")]
    back = pandas.read_csv(io.StringIO("\n".join(lines)), sep=r"\s*&\s*", engine="python")
    pandas.testing.assert_frame_equal(back, plain.to_frame(), rtol=1e-5)
    assert "and 40 rows more" in plain._repr_html_()
    assert "without rows" in dataclasses.replace(plain, found=())._repr_html_()


def test_a_table_for_a_paper_has_no_empty_columns() -> None:
    """If this fails, a column of nan stands in print; single values that are missing are dashes."""
    rows = [{"a": 1, "b": math.nan, "c": None, "d": 0.5}, {"a": 2, "b": math.nan, "c": None, "d": math.nan}]

    class Rows(Tabular):
        def records(self) -> list[dict]:
            return rows

    text = Rows().to_latex()
    assert "a & d" in text
    assert "2 & --" in text
    assert "nan" not in text
    assert known_columns(rows) == ["a", "d"]
    assert "b" in Rows().to_latex(["a", "b"])


def test_epochs_of_measured_targets_have_their_misses() -> None:
    """If this fails, a paper's table of a regression has a cost in no unit, and no error at all."""
    two = {"loss": np.arange(2.0), "test_error": np.full(2, math.nan), "test_rms": np.array([[1.0, 2], [3, 4]])}
    two = {**two, "test_r2": two["test_rms"] / 10, "skipped": np.zeros(2)}
    rows = epochs_of(two, ("force_x", "heat"))
    assert rows[1]["test_rms of heat"] == 4
    assert list(epochs_for_paper(rows)[0]) == [
        *("epoch", "loss", "test RMS of force_x", "test R2 of force_x", "test RMS of heat", "test R2 of heat")
    ]
    four = {"loss": np.zeros(1), "test_rms": np.zeros((1, 4)), "test_r2": np.ones((1, 4))}
    told = epochs_for_paper(epochs_of(four, tuple("abcd")))
    assert list(told[0]) == ["epoch", "loss", *(f"test R2 of {name}" for name in "abcd")]
    assert list(epochs_for_paper(epochs_of(two))[0]) == ["epoch", "loss", "test error", "skipped"]


def read_latex(text: str) -> list[list[str]]:
    """Cells of a table as LaTeX would take them; AssertionError where it would stop, or print another sign."""
    known = r"begin|end|toprule|midrule|bottomrule|caption|centering|footnotesize|setlength|tabcolsep|par|medskip"
    known += r"|raggedright|textbackslash|textasciitilde|textasciicircum|cdot|infty|times|pm|beta|mu"
    for command in re.findall(r"\\([a-zA-Z]+)", text):
        assert re.fullmatch(known, command), command
    depth, math_mode, k = 0, False, 0
    while k < len(text):
        sign = text[k]
        if sign == "\\":  # a command, or a sign that stands for itself
            k += 2
            continue
        math_mode ^= sign == "$"
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
        assert sign not in "#~%"
        assert sign not in "_^" or math_mode, text[k - 20 : k + 5]
        assert sign not in '<>|"' or math_mode
        assert ord(sign) < 128, sign
        k += 1
    assert depth == 0
    assert not math_mode
    sides = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert sides is not None
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    rows = [line.removesuffix(r" \\") for line in text.splitlines() if line.endswith(r"\\")]
    assert not any(row.startswith(("[", "*")) for row in rows)  # options of the row before
    cells = [re.split(r"(?<!\\)&", row) for row in rows]
    assert {len(row) for row in cells} == {len(sides[1])}
    return [[cell.strip() for cell in row] for row in cells]


def test_any_name_and_number_compiles() -> None:
    """If this fails, a paper does not compile, or prints another sign than the name has."""
    signs = [
        "a_b",
        "50 %",
        "x & y",
        "#1",
        "{z}",
        "$",
        "~^\\",
        "<|>",
        "[0]",
        "* (1)",
        'he "said"',
        "a\nb",
        "\u00b5, \u03b2",
    ]
    numbers = [1.5e-7, -2e-9, -0.0, math.inf, -math.inf, math.nan, None, -3, 0, True, 1.0, 12345.678, -0.5]
    rows = Rows(tuple({"name_%": name, "v": value} for name, value in zip(signs, numbers, strict=True)))
    cells = read_latex(rows.to_latex(caption="A table of 5 % & more_names [1]"))
    assert cells[0] == [r"name\_\%", "v"]
    assert [row[1] for row in cells[1:]] == [
        r"$1.5 \cdot 10^{-7}$", r"$-2 \cdot 10^{-9}$", "0", r"$\infty$", r"$-\infty$", "--", "--", "$-3$", "0",
        "True", "1", r"$1.23 \cdot 10^{4}$", "$-0.5$",
    ]  # fmt: skip
    assert cells[3][0] == r"x \& y"
    assert cells[9][0] == "{[}0{]}"
    assert rows.to_latex(caption="") == rows.to_latex()


def test_tables_of_gradients_fit_a_column_and_tell_how_they_were_found() -> None:
    """A table has the few columns of a paper, layers by the model's names, and in its note solver, gates, copies,
    beta, examples and the share that settles; if this fails, a reader cannot tell what was measured."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    x, y = torch.rand(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    report = gradient_report(from_sequential(model, (5,)), x, y, CrossEntropy(), beta=0.05, gates="both")
    for table, key, names in (
        (report, "parameter", ["0.weight", "0.bias", "2.weight", "2.bias"]),
        (report.by_layer(), "layer", ["0 (Linear)", "2 (Linear)"]),
    ):
        latex = table.to_latex()
        cells = read_latex(latex)
        assert cells[0] == [key, "gates", "1 - cosine", "relative error"]
        assert [row[0] for row in cells[1::2]] == names
        assert [row[1] for row in cells[1:]] == ["held", "live"] * len(names)
        for part in (
            "solver anderson",
            "beta 0.05",
            "one copy of each weight",
            "Held gates: 6 of 6",
            r"(100\%) settle",
        ):
            assert part in latex, part
        assert "Live gates: " in latex
    assert report.to_frame()["parameter"].tolist() == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert report.by_layer().to_frame()["layer"].tolist() == ["0", "2"]


def test_a_table_that_nobody_looks_at_is_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, a row of a piped table is several lines, which no program reads; nor does it end in blanks."""
    long = "x" * 300
    Report().table("a title of many words " * 10, ["name", "value", ""], [["one", long, "words and words " * 20]])
    lines = capsys.readouterr().out.splitlines()
    assert any("one" in line and long in line and line.endswith("words") for line in lines)
    assert all(line == line.rstrip() for line in lines[1:])
    assert counted(1, "instance") == "1 instance"
    assert counted(1000, "instance") == "1,000 instances"


def test_long_lists_of_names_are_not_told() -> None:
    """If this fails, a message is a page of names, in which the right one is not seen."""
    told = str(unknown_name("field", "level", [f"field_{k}" for k in range(80)] + ["levels"], "the reference"))
    assert "one of 81 names (the reference has all; the nearest: levels" in told
    assert told.endswith("but was 'level'. Did you mean 'levels'?")
    assert len(told) < 200
    assert "one of a, b, but was 'c'" in str(unknown_name("field", "c", ["a", "b"]))

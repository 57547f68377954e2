"""Examples from files of one's own. If these fail, a network learns other columns, classes or rows than it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from physics_ep import cli, open_run
from physics_ep.config import parse_config
from physics_ep.data.datasets import Dataset, load_dataset
from physics_ep.data.given import dataset_of_arrays
from physics_ep.data.held_out import held_out
from physics_ep.data.tables import split
from physics_ep.errors import InputError

N = 60
RNG = np.random.default_rng(7)
LABELS = RNG.integers(0, 3, N)
FEATURES = RNG.normal(size=(N, 4)) + LABELS[:, None] * np.array([6.0, 0, -4, 0])
NAMES = np.array(["setosa", "versicolor", "virginica"])


def load(**section: object) -> Dataset:
    return load_dataset(parse_config({"system": {"name": "hopfield"}, "data": section}).data)


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """A table as spreadsheets write it: quotes, a unit in a name, the class in the middle."""
    lines = ['"length, mm",width,species,depth,odd']
    for (a, b, c, d), k in zip(FEATURES, LABELS, strict=True):
        lines.append(f"{float(a)!r},{float(b)!r},{NAMES[k]},{float(c)!r},{float(d)!r}")
    path = tmp_path / "flowers.csv"
    path.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    return path


def rows_of(data: Dataset, features: np.ndarray) -> list[int]:
    """Which rows of the table the examples to train on and then those to test on are."""
    found = torch.cat([data.train_x, data.test_x]).double().numpy()
    return [int(np.abs(features - x).sum(1).argmin()) for x in found]


def test_a_table_is_read_as_it_stands(flowers: Path) -> None:
    """Every row once, each with its class; a fifth of each class held back, the same by the same seed."""
    data = load(name="csv", file=str(flowers), target="species", scaling="none")
    assert data.classes == tuple(NAMES)
    rows = rows_of(data, FEATURES)
    assert sorted(rows) == list(range(N))
    assert torch.cat([data.train_y, data.test_y]).tolist() == LABELS[rows].tolist()
    found = torch.cat([data.train_x, data.test_x])
    torch.testing.assert_close(found, torch.from_numpy(FEATURES[rows]).float(), rtol=0, atol=1e-6)
    for k in range(3):
        assert int((data.test_y == k).sum()) == round(0.2 * int((k == LABELS).sum()))
    again = load(name="csv", file=str(flowers), target="species", scaling="none")
    assert torch.equal(again.train_x, data.train_x)
    other = load(name="csv", file=str(flowers), target="species", scaling="none", seed=1)
    assert not torch.equal(other.test_x, data.test_x)


def test_features_are_scaled_by_the_examples_to_train_on(flowers: Path) -> None:
    """Measured on the test part too, a test error would know what it must not."""
    plain = load(name="csv", file=str(flowers), target="species", scaling="none")
    mean, deviation = plain.train_x.mean(0), plain.train_x.std(0, correction=0)
    data = load(name="csv", file=str(flowers), target="species")
    torch.testing.assert_close(data.test_x, (plain.test_x - mean) / deviation, rtol=1e-4, atol=1e-5)
    least, most = plain.train_x.amin(0), plain.train_x.amax(0)
    ranged = load(name="csv", file=str(flowers), target="species", scaling="range")
    torch.testing.assert_close(ranged.test_x, (plain.test_x - least) / (most - least), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["csv", "measured", "npz", "arrays", "fewer"])
def test_examples_held_out_scale_nothing(tmp_path: Path, case: str) -> None:
    """What is learnt from is the same whatever examples held out hold: they choose, and are not fitted to."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 3))
    y = rng.normal(size=40) if case == "measured" else np.arange(40) % 2
    section = {"validation": 0.25, "seed": 5, "scaling": "standard", "test_fraction": 0.2}
    if case == "fewer":
        section |= {"train_examples": 20}
    groups = np.zeros(40, int) if case == "measured" else y
    rows = split(groups, 0.2, 5)[0]
    used = rows[:20] if case == "fewer" else rows
    kept, held = held_out(groups[used], 0.25, 5)
    aside = np.union1d(used[held], np.setdiff1d(rows, used))  # in the training set, yet not learnt from

    def learnt(x: np.ndarray, y: np.ndarray, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        if case == "arrays":
            told = parse_config({"system": {"name": "hopfield"}, "data": section}).data
            data = dataset_of_arrays((x, y), told)
        else:
            path = tmp_path / f"{name}.{'npz' if case == 'npz' else 'csv'}"
            if case == "npz":
                np.savez(path, x=x, y=y)
            else:
                rows = [",".join(repr(v.item()) for v in (*a, b)) for a, b in zip(x, y, strict=True)]
                path.write_text("\n".join(["a,b,c,target", *rows]), encoding="utf-8")
            data = load(name=path.suffix[1:], file=str(path), **section)
        return data.train_x[kept], data.train_y[kept]

    first = learnt(x, y, "first")
    x = x.copy()
    x[aside] = 100 * x[aside] + 7
    if case == "measured":
        y = y.copy()
        y[aside] += 50
    assert all(map(torch.equal, first, learnt(x, y, "second")))
    torch.testing.assert_close(first[0].mean(0), torch.zeros(3), atol=1e-6, rtol=0)


def test_the_columns_that_are_learnt_from_are_told(flowers: Path, tmp_path: Path) -> None:
    """Breaks if another measured column is a feature without a word, or the line is long where columns are many."""
    whole = load(name="csv", file=str(flowers), target=["depth", "odd"], columns=["width"], task="regression")
    assert whole.taken is not None
    told = "features: width (1 of the 5 columns of flowers.csv); targets: depth, odd"
    assert whole.taken.words() == told
    rest = load(name="csv", file=str(flowers), target="species").taken
    assert rest is not None
    assert rest.features == ("length, mm", "width", "depth", "odd")
    assert "'length, mm', width, depth, odd (4 of the 5 columns of flowers.csv; data.columns" in rest.words()
    names = [f"c{k}" for k in range(40)]
    rows = "\n".join(",".join(str((k * 7 + r) % 5) for k in range(40)) for r in range(20))
    many = load(name="csv", file=table(tmp_path, f"{','.join(names)}\n{rows}\n")).taken
    assert many is not None
    assert "features: c0, c1, c2, c3, c4, ..., c37, c38 (39 of" in many.words()
    assert len(many.words()) < 120
    x, y = np.ones((4, 2)), np.array([0.5, 1.5, 2.5, 3.5])
    assert dataset_of_arrays((x, y), parse_config({"system": {"name": "hopfield"}}).data).taken is None


def test_columns_and_a_second_file(flowers: Path, tmp_path: Path) -> None:
    data = load(name="csv", file=str(flowers), target="species", columns=["odd", "width"], scaling="none")
    assert sorted(rows_of(data, FEATURES[:, [3, 1]])) == list(range(N))
    held = tmp_path / "held.csv"
    held.write_text("\n".join(flowers.read_text(encoding="utf-8-sig").splitlines()[:9]), encoding="utf-8")
    data = load(name="csv", file=str(flowers), test_file=str(held), target="species", scaling="none")
    assert (len(data.train_x), len(data.test_x)) == (N, 8)
    torch.testing.assert_close(data.test_x, torch.from_numpy(FEATURES[:8]).float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_without_names_and_with_integer_classes(tmp_path: Path, separator: str) -> None:
    """The last column is the class; 10 comes after 9."""
    path = tmp_path / "plain.csv"
    labels = np.where(LABELS == 2, 10, LABELS + 8)
    rows = [
        separator.join(f"{v:.6f}" for v in x) + f"{separator}{k}" for x, k in zip(FEATURES, labels, strict=True)
    ]
    path.write_text("\n".join(rows), encoding="utf-8")
    data = load(name="csv", file=str(path))
    assert data.classes == ("8", "9", "10")
    assert len(data.train_x) + len(data.test_x) == N
    assert data.train_x.shape[1] == 4


def test_arrays_of_one_and_of_two_parts(tmp_path: Path) -> None:
    images = (RNG.random((N, 5, 6)) * 255).astype(np.uint8)
    np.savez(tmp_path / "one.npz", images=images, labels=LABELS)
    data = load(name="npz", file=str(tmp_path / "one.npz"), layout="image")
    assert data.train_x.shape[1:] == (1, 5, 6)
    assert float(data.train_x.max()) <= 1
    np.savez(tmp_path / "last.npz", x=RNG.random((N, 5, 6, 3)), y=LABELS)
    assert load(name="npz", file=str(tmp_path / "last.npz"), layout="image").train_x.shape[1:] == (3, 5, 6)
    np.savez(
        tmp_path / "two.npz", x_train=FEATURES[:40], y_train=LABELS[:40], x_test=FEATURES[40:], y_test=LABELS[40:]
    )
    data = load(name="npz", file=str(tmp_path / "two.npz"))
    torch.testing.assert_close(data.test_x, torch.from_numpy(FEATURES[40:]).float())
    assert data.test_y.tolist() == LABELS[40:].tolist()
    np.savez(tmp_path / "own.npz", x=FEATURES, kind=LABELS, y=np.zeros(N))
    data = load(name="npz", file=str(tmp_path / "own.npz"), target="kind")
    assert data.n_classes == 3


def test_parquet_is_as_csv(flowers: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra parquet)")
    from pyarrow.parquet import write_table

    columns = {"a": FEATURES[:, 0], "b": FEATURES[:, 1], "species": NAMES[LABELS], "c": FEATURES[:, 2]}
    write_table(pyarrow.table(columns), tmp_path / "flowers.parquet")
    data = load(name="parquet", file=str(tmp_path / "flowers.parquet"), target="species", columns=["a", "b"])
    csv = load(name="csv", file=str(flowers), target="species", columns=["length, mm", "width"])
    assert torch.equal(data.train_x, csv.train_x)
    assert data.classes == csv.classes


def test_a_share_of_each_class_is_held_back() -> None:
    labels = np.array([0] * 10 + [1] * 100 + [2])
    kept, held = split(labels, 0.1, 3)
    assert np.bincount(labels[held], minlength=3).tolist() == [1, 10, 0]
    assert sorted([*kept, *held]) == list(range(111))


def test_rare_classes_are_held_back_too_and_leave_one_to_learn() -> None:
    """Where each class is rounded for itself, thirty classes of two examples leave one example to test on; where
    the last example of a class is given away, the class cannot be learnt."""
    labels = np.repeat(np.arange(30), 2)
    for kept, held in (split(labels, 0.2, 0), held_out(labels, 0.2, 0)):
        assert len(held) == 12
        assert np.unique(labels[kept]).tolist() == list(range(30))
    labels = np.array([0, 1] + [2] * 4)
    kept, held = held_out(labels, 3, 0)
    assert set(labels[held].tolist()) == {2}
    assert len(kept) == 3


def table(tmp_path: Path, text: str, name: str = "own.csv") -> str:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_second_file_is_read_by_the_names_of_the_first(tmp_path: Path) -> None:
    """Columns in another order, or with more beside them, are the same features; one that is missing is named."""
    rows = [(k, k % 3, k * k, "ab"[k % 2]) for k in range(12)]
    first = table(tmp_path, "u,v,w,kind\n" + "".join("{},{},{},{}\n".format(*row) for row in rows))
    turned = "".join(f"{k},{w},x,{v},{u}\n" for u, v, w, k in rows)
    second = table(tmp_path, "kind,w,more,v,u\n" + turned, "second.csv")
    data = load(name="csv", file=first, test_file=second)
    assert torch.equal(data.train_x, data.test_x)
    assert torch.equal(data.train_y, data.test_y)
    lacking = table(tmp_path, "u,v,x,kind\n" + "".join("{},{},{},{}\n".format(*row) for row in rows), "third.csv")
    with pytest.raises(InputError, match=r"data.test_file must have the columns of data.file.*without 'w'"):
        load(name="csv", file=first, test_file=lacking)


@pytest.mark.filterwarnings("ignore:.*taken for names of columns")
def test_names_that_are_numbers_are_no_example(tmp_path: Path) -> None:
    """A data frame without names is written with 0, 1, 2: as an example these are a class of their own."""
    body = "".join(f"{0.3 * k},{k % 5},{k % 2}\n" for k in range(20))
    for names in ("0,1,2\n", "1,2,3\n", "2019,2020,2021\n"):
        data = load(name="csv", file=table(tmp_path, names + body))
        assert data.classes == ("0", "1")
        assert len(data.train_x) + len(data.test_x) == 20
    data = load(name="csv", file=table(tmp_path, body))
    assert len(data.train_x) + len(data.test_x) == 20


def test_the_index_of_a_data_frame_is_nothing_to_learn(tmp_path: Path) -> None:
    """Rows are often sorted by class, so that their numbers tell it: training learns nothing else."""
    body = "".join(f"{k},{k % 3},{'a' if k < 10 else 'b'}\n" for k in range(20))
    for name in ("", "Unnamed: 0"):
        path = table(tmp_path, f"{name},u,kind\n" + body)
        with pytest.raises(InputError, match=r"an index is no feature.*column 1 has none"):
            load(name="csv", file=path)
        assert load(name="csv", file=path, columns=["u"], target="kind").train_x.shape[1] == 1
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    held = pa.table({"u": [0.0, 1.0, 2.0] * 4, "kind": ["a", "b"] * 6, "__index_level_0__": list(range(12))})
    held = held.replace_schema_metadata({"pandas": json.dumps({"index_columns": ["__index_level_0__"]})})
    write_table(held, tmp_path / "own.parquet")
    data = load(name="parquet", file=str(tmp_path / "own.parquet"))
    assert (data.classes, data.train_x.shape[1]) == (("a", "b"), 1)


def test_missing_classes_are_no_class(tmp_path: Path) -> None:
    """NaN in a column of classes of a parquet file was as many classes as there were of them."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    held = pa.table({"u": np.arange(12.0), "kind": np.array([0.0, 1.0, np.nan] * 4)})
    write_table(held, tmp_path / "own.parquet")
    with pytest.raises(InputError, match=r"data.target must be given for each example, but was 'nan'"):
        load(name="parquet", file=str(tmp_path / "own.parquet"))


def test_constant_columns_are_zero(tmp_path: Path) -> None:
    """The mean of thirty tenths is no tenth, and what is left was divided by itself."""
    path = table(tmp_path, "u,v,kind\n" + "".join(f"0.1,{k},{'ab'[k % 2]}\n" for k in range(30)))
    for scaling in ("standard", "range"):
        assert not load(name="csv", file=path, scaling=scaling).train_x[:, 0].any()


def test_a_class_is_spelt_in_one_way(tmp_path: Path) -> None:
    x = RNG.normal(size=(8, 3))
    np.savez(tmp_path / "own.npz", train_x=x, train_y=[0, 1] * 4, test_x=x, test_y=["0", "1"] * 4)
    with pytest.raises(InputError, match="spell each class in one way"):
        load(name="npz", file=str(tmp_path / "own.npz"))


MEASURED = "a,b,v\n1,2,0.5\n2,3,1.5\n3,4,2\n"
GOOD = "a,b,kind\n1,2,x\n2,3,y\n3,4,x\n4,5,y\n"


@pytest.mark.parametrize(
    ("text", "section", "message"),
    [
        (GOOD, {"target": "kin"}, "data.target must be one of a, b, kind, .* Did you mean 'kind'"),
        (GOOD, {"columns": ["a", "c"]}, "data.columns must be one of"),
        (GOOD, {"columns": ["a", "kind"]}, "name at least one column, and not the target"),
        (GOOD, {"target": "a"}, "'kind' is 'x' in example 1"),
        (GOOD.replace("2,3,y", "2,,y"), {}, "'b' is nothing in example 2"),
        (GOOD.replace("2,3,y", "2,nan,y"), {}, "'b' is 'nan' in example 2"),
        (GOOD.replace("2,3,y", "2,3"), {}, "hold 3 values in each line.*2 in example 2"),
        (GOOD.replace("2,3,y", "2,3,"), {}, "be given for each example"),
        (GOOD.replace("a,b", "a,a"), {}, "'a' twice"),
        (MEASURED, {"task": "classification"}, "name classes, by integers or texts"),
        (MEASURED, {"target": ["v", "w"]}, "data.target must be one of"),
        (MEASURED, {"target": ["v", "v"]}, "name at least one column, and each once"),
        (MEASURED, {"target": ["b", "v"], "task": "classification"}, "be one column of classes"),
        (MEASURED, {"columns": ["a", "v"]}, "not the target"),
        (MEASURED.replace("1.5", "nan"), {}, "be a number in each example.* was 'nan' in some, and 0.5 in others"),
        (MEASURED.replace("1.5", ""), {"task": "regression"}, "be a finite number, but was nothing in example 2"),
        (GOOD, {"task": "regression"}, "be a finite number, but was 'x' in example 1"),
        (GOOD, {"target_scaling": "range"}, "data.target_scaling must be left out where targets are classes"),
        (GOOD, {"task": "ranking"}, "data.task must be"),
        ("a,price\n" + "".join(f"{k},{10 * k}\n" for k in range(30)), {}, "30 whole numbers in 30 examples"),
        ("a,kind\n", {}, "at least two examples"),
        ("a,kind\n1,x\n2,x\n", {}, "name 2 to 10000 classes"),
        (GOOD, {"layout": "image"}, "data.layout must be 'flat'"),
        (GOOD, {"size": 32}, "data.size must be left out"),
        (GOOD.replace(",", "|"), {}, "two columns or more, between commas.*begins with 'a.b.kind'"),
        (
            GOOD.replace("x", "0").replace("2,3,y", "2,3,NA").replace("y", "1"),
            {},
            "each example, but was 'NA' in some",
        ),
        (GOOD.replace("2,3,y", "2,3,nan"), {}, "each example, but was 'nan' in some"),
        (GOOD.replace("2,3,y", "2,3,0.0").replace("x", "0").replace("y", "1"), {}, "spell each class in one way"),
        (
            MEASURED.replace("1.5", "0.5").replace(",2\n", ",0.5\n"),
            {},
            "differ from example to example, but was 0.5",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, text: str, section: dict, message: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load(name="csv", file=str(path), **section)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pickled.npz").write_bytes(b"PK\3\4 torn")
    np.savez(tmp_path / "objects.npz", x=np.array([{}, 1], dtype=object), y=[0, 1])
    np.savez(tmp_path / "short.npz", x=FEATURES, y=LABELS[:5])
    np.savez(tmp_path / "hole.npz", x=np.where(FEATURES[3, 1] == FEATURES, np.nan, FEATURES), y=LABELS)
    np.savez(tmp_path / "names.npz", a=FEATURES, y=LABELS)
    for section, message in (
        ({"name": "csv"}, "data.file must be given"),
        ({"name": "csv", "file": str(tmp_path)}, "which is a folder"),
        ({"name": "csv", "file": "nowhere.csv"}, "which is no file"),
        ({"name": "npz", "file": str(tmp_path / "pickled.npz")}, "npz file of plain arrays"),
        ({"name": "npz", "file": str(tmp_path / "objects.npz")}, "npz file of plain arrays"),
        ({"name": "npz", "file": str(tmp_path / "short.npz")}, r"data.target must have shape \(60,\)"),
        ({"name": "npz", "file": str(tmp_path / "hole.npz")}, "NaN or infinity in example 3"),
        ({"name": "npz", "file": str(tmp_path / "names.npz")}, "hold an array of inputs, named x or X"),
        ({"name": "digits", "file": "own.csv"}, "data.file must be left out for 'digits'"),
        ({"name": "mnist", "target": "y"}, "data.target must be left out for 'mnist'"),
    ):
        with pytest.raises(InputError, match=message):
            load(**section)


def test_a_csv_is_trained_with_a_few_lines(flowers: Path, tmp_path: Path) -> None:
    """What a newcomer writes; the run file knows the file and its split."""
    config = tmp_path / "own.toml"
    config.write_text(
        f'[system]\nname = "hopfield"\nsizes = [4, 16, 3]\n[data]\nname = "csv"\nfile = "{flowers}"\n'
        'target = "species"\n[training]\nepochs = 12\n[optimizer]\nlr = 0.2\n',
        encoding="utf-8",
    )
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", str(config), "--out", str(tmp_path / "run.h5"), "--quiet"])
    assert not ended.value.code
    run = open_run(tmp_path / "run.h5")
    assert run.metric("test_error")[-1] < 0.2
    assert run.config["data"]["file"] == str(flowers)

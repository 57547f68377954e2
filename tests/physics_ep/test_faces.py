"""Packages import what they promise on first use; what was at an old path is found there for one release."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import pickle
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from physics_ep import moved
from tests.support.paths import ROOT

PACKAGES = ["physics_ep", "hardware_models", "validation", "figures"]
FACES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("__init__.py"))]

HOUSE = {
    "__init__.py": """
        from physics_ep.faces import lazy
        __getattr__, __dir__, __all__ = lazy(__name__, {"Lamp": "things.lamps", "light": "things.lamps"})
    """,
    "things/__init__.py": "",
    "things/lamps.py": """
        class Lamp:
            pass

        def light():
            return "on"

        def _wire():
            return "copper"
    """,
    "things/bulbs.py": "def bulb(): return 60",
    # A folder that bears the name of an old module.
    "rooms/__init__.py": """
        from physics_ep.faces import lazy
        __getattr__, __dir__, __all__ = lazy(__name__, {"Kitchen": "kitchens"})
    """,
    "rooms/kitchens.py": """
        class Kitchen:
            pass

        class Stove:
            pass

        class ColdStore:
            pass
    """,
    # A module that stayed and gave a name away.
    "door.py": """
        from physics_ep.moved import moved_names
        __getattr__ = moved_names(__name__)

        def knock():
            return "come in"
    """,
}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of faces, with old paths: `lamps` moved, `rooms` is a folder now, `door` lost a name."""
    for name, text in HOUSE.items():
        path = tmp_path / "house_of_faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(moved.MOVED, "house_of_faces.lamps", "house_of_faces.things.lamps")
    monkeypatch.setitem(moved.NAMES, "house_of_faces.lamps", {"bulb": "house_of_faces.things.bulbs"})
    monkeypatch.setitem(moved.NAMES, "house_of_faces.rooms", {"Stove": "house_of_faces.rooms.kitchens"})
    monkeypatch.setitem(moved.NAMES["house_of_faces.rooms"], "Larder", "house_of_faces.rooms.kitchens:ColdStore")
    monkeypatch.setitem(moved.NAMES, "house_of_faces.door", {"light": "house_of_faces.things.lamps"})
    yield "house_of_faces"
    for name in [name for name in sys.modules if name.partition(".")[0] == "house_of_faces"]:
        del sys.modules[name]


def run(source: str) -> tuple[dict, list[warnings.WarningMessage]]:
    """The names that a user's program leaves, and what it was warned of."""
    scope: dict = {"__name__": "program"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile(source, "program.py", "exec"), scope)
    return scope, caught


@pytest.mark.parametrize("path", FACES, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_faces_tell_python_and_type_checkers_the_same(path: Path) -> None:
    """The imports under TYPE_CHECKING and the table of `lazy` agree, and every name is where the table says."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tables = [
        ast.literal_eval(node.args[1])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "lazy"
    ]
    if not tables:
        assert not [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level], "not lazy"
        return
    (table,) = tables
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    typed = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        assert statement.level == 1
        for alias in statement.names:
            assert alias.name == alias.asname, "write `name as name`, so that type checkers let users import it"
            typed[alias.name] = statement.module
    assert typed == table
    face = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
    assert face.__all__ == sorted(table)
    assert set(face.__all__) <= set(dir(face))
    files = {module.stem for module in path.parent.glob("*.py")} | {
        folder.parent.name for folder in path.parent.glob("*/__init__.py")
    }
    assert not files & set(table), "importing the module would put it in the promised name's place"
    for name, home in table.items():
        value = getattr(face, name)
        assert value is getattr(importlib.import_module(f"{face.__name__}.{home}"), name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__ == f"{face.__name__}.{home}", f"{name} only passes through {home}"


def test_names_are_imported_on_first_use(house: str) -> None:
    """Importing a package costs nothing of what is in it; a used name is an ordinary global afterwards."""
    package = importlib.import_module(house)
    assert f"{house}.things.lamps" not in sys.modules
    assert package.light() == "on"
    assert vars(package)["light"] is sys.modules[f"{house}.things.lamps"].light
    assert {"Lamp", "light", "__all__"} <= set(dir(package))
    with pytest.raises(AttributeError, match=f"module '{house}' has no attribute 'Lampp'") as caught:
        _ = package.Lampp
    assert caught.value.name == "Lampp", "Python takes its `Did you mean` from here"
    with pytest.raises(ImportError, match="Lampp"):
        exec(f"from {house} import Lampp", {})


def test_star_gives_the_promised_names(house: str) -> None:
    """`from package import *` takes what the face promises and nothing else."""
    scope, _ = run(f"from {house} import *")
    assert {name for name in scope if not name.startswith("__")} == {"Lamp", "light"}


@pytest.mark.parametrize(
    "line",
    [
        "import house_of_faces.lamps as lamps",
        "from house_of_faces import lamps",
        "from house_of_faces.lamps import light, bulb, Lamp, _wire; from house_of_faces import lamps",
        "from importlib import import_module; lamps = import_module('house_of_faces.lamps')",
    ],
)
def test_old_module_gives_the_new_names(house: str, line: str) -> None:
    """However it is imported, an old module has what the new ones have, and warns once, at the user's own line."""
    scope, caught = run(f"'a program'\n{line}\nfound = lamps.light, lamps.Lamp, lamps.bulb, lamps._wire")
    new, bulbs = (importlib.import_module(f"{house}.things.{name}") for name in ("lamps", "bulbs"))
    assert scope["found"] == (new.light, new.Lamp, bulbs.bulb, new._wire)
    assert [str(warning.message) for warning in caught] == [
        f"{house}.lamps is now {house}.things.lamps; bulb is now {house}.things.bulbs.bulb; "
        "the old path goes with the next release"
    ]
    assert (caught[0].category, caught[0].filename, caught[0].lineno) == (DeprecationWarning, "program.py", 2)
    lamps = scope["lamps"]
    assert dir(lamps) == lamps.__all__ == ["Lamp", "bulb", "light"]
    assert not hasattr(lamps, "__file__"), "the thin module would pass as the new module's file"
    with pytest.raises(AttributeError, match=r"'house_of_faces\.lamps' \(now 'house_of_faces\.things\.lamps'\)"):
        _ = lamps.lampp
    assert run(line)[1] == [], "a second import is silent"


def test_old_module_is_found_without_being_imported(house: str) -> None:
    """`find_spec` answers for old paths, silently; for others the finder leaves no trace."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec = importlib.util.find_spec(f"{house}.lamps")
    assert spec.origin == f"moved to {house}.things.lamps"
    assert f"{house}.things.lamps" not in sys.modules
    assert importlib.util.find_spec(f"{house}.candles") is None
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'house_of_faces\.candles'"):
        importlib.import_module(f"{house}.candles")


def test_pickles_that_name_old_paths_load(house: str) -> None:
    """An object pickled by the old module comes back as the new module's class, of a folder too."""
    old = b"chouse_of_faces.lamps\nLamp\n)\x81."
    with pytest.warns(DeprecationWarning, match=r"house_of_faces\.lamps is now") as caught:
        lamp = pickle.loads(old)
    assert caught[0].filename == __file__
    assert type(lamp) is importlib.import_module(f"{house}.things.lamps").Lamp
    with pytest.warns(DeprecationWarning, match=r"rooms\.Stove is now house_of_faces\.rooms\.kitchens\.Stove"):
        stove = pickle.loads(old.replace(b"lamps\nLamp", b"rooms\nStove"))
    assert type(stove) is importlib.import_module(f"{house}.rooms.kitchens").Stove


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("from house_of_faces.rooms import Stove", "rooms.Stove is now house_of_faces.rooms.kitchens.Stove"),
        ("import house_of_faces.rooms as r; r.Stove; r.Stove", "rooms.Stove is now house_of_faces.rooms.kitchens."),
        ("from house_of_faces.rooms import Larder", "rooms.Larder is now house_of_faces.rooms.kitchens.ColdStore"),
        ("from house_of_faces.door import light", "door.light is now house_of_faces.things.lamps.light"),
        ("from house_of_faces import door; door.light()", "door.light is now house_of_faces.things.lamps.light"),
    ],
)
def test_names_that_left_a_place_that_is_still_there(house: str, line: str, message: str) -> None:
    """A folder that bears an old module's name, and a file that lost a name, serve it with one warning."""
    _, caught = run(f"\n\n{line}")
    assert len(caught) == 1
    assert message in str(caught[0].message)
    assert (caught[0].category, caught[0].filename, caught[0].lineno) == (DeprecationWarning, "program.py", 3)


def test_promised_names_never_warn(house: str) -> None:
    """What a face promises, and a file's own functions, are no old names."""
    source = "from house_of_faces.rooms import Kitchen; from house_of_faces.door import knock; knock(); Kitchen()"
    assert run(source)[1] == []


def test_finder_is_asked_last_and_once() -> None:
    """Modules that exist are never looked up in the table; reloading the package adds no second finder."""
    import physics_ep

    importlib.reload(physics_ep)
    places = [k for k, finder in enumerate(sys.meta_path) if type(finder).__name__ == "OldPaths"]
    assert len(places) == 1
    names = [getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path]
    assert places[0] > names.index("PathFinder")


def test_every_old_path_leads_somewhere() -> None:
    """The tables name modules and names that are there, and no module that Python would find by itself."""
    for old, new in moved.MOVED.items():
        assert old != new
        assert isinstance(importlib.import_module(new), ModuleType)
        assert importlib.util.find_spec(old).origin == f"moved to {new}", f"{old} is there: the row never counts"
    for old, names in moved.NAMES.items():
        assert importlib.util.find_spec(old) is not None, old
        for name, new in names.items():
            home, _, other = new.partition(":")
            assert hasattr(importlib.import_module(home), other or name), (old, name, new)


# -- the house before it had folders -------------------------------------------------------------------------------

BEFORE: dict[str, str] = json.loads((ROOT / "tests" / "data" / "names_before_folders.json").read_text("utf-8"))


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_public_name_of_the_release_before_is_at_its_old_path(package: str) -> None:
    """A user's program, written for the release before, still imports what it did: `from old.path import name`."""
    lost = []
    for module, names in BEFORE.items():
        if module.partition(".")[0] != package:
            continue
        try:
            old = importlib.import_module(module)
        except ImportError as error:
            lost.append(f"{module}: {error}")
            continue
        lost += [f"{module}.{name}" for name in names.split() if not hasattr(old, name)]
    assert lost == []


def test_an_old_path_warns_and_names_the_new_one() -> None:
    """The warning tells a user what to change: it names both paths, at the line that imports the old one."""
    for name in [name for name in sys.modules if name == "hardware_models.unit_graph"]:
        del sys.modules[name]
    scope, caught = run("from hardware_models.unit_graph import UnitGraph")
    assert scope["UnitGraph"].__module__ == "hardware_models.hopfield.graph"
    (warning,) = [w for w in caught if "unit_graph" in str(w.message)]
    assert "hardware_models.unit_graph is now hardware_models.hopfield.graph" in str(warning.message)
    assert warning.filename == "program.py"

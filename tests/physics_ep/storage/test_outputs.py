"""Outputs never destroy: if these fail, a command takes a user's file, or a run another's place."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from hardware_models.devices.model import DeviceModel
from hardware_models.netlists.netlist import write_netlist
from hardware_models.netlists.parts import Parts
from hardware_models.spice.phases import export_phases
from physics_ep import cli, open_run
from physics_ep.command_options import READS, Writes, file_mark
from physics_ep.errors import InputError
from physics_ep.storage.origins import origin_of
from physics_ep.storage.outputs import claim, write_json, writing
from physics_ep.storage.parts import TrajectoryWriter, parts_folder
from physics_ep.storage.run_file import Run, write_run

NAMES_A_FILE = re.compile(r"FILE|RUN|DIR|CONFIG|SYSTEM|NETWORK|SWEEP\.h5|\.(h5|json|csv|cir|toml)")
"""How the help calls what names a file, or may."""
PRECIOUS = b"what a user wrote\n"


def commands() -> dict[tuple[str, ...], Callable[..., Any]]:
    """All commands by their words, from the application itself."""
    failures: dict[str, str] = {}
    app = cli.application(failures)
    assert not failures
    found = {(info.name,): info.callback for info in app.registered_commands}
    for group in app.registered_groups:
        found |= {(group.name, info.name): info.callback for info in group.typer_instance.registered_commands}
    return found


COMMANDS = commands()


def told(annotation: Any) -> Any:
    """The option or argument of an annotation."""
    return next((part for part in get_args(annotation)[1:] if hasattr(part, "param_decls")), None)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_that_names_a_file_is_guarded(words: tuple[str, ...]) -> None:
    """A new option for a file must say whether it is read or written; then the guard knows it."""
    for name, parameter in inspect.signature(COMMANDS[words]).parameters.items():
        kinds = [*get_args(parameter.annotation)[:1], *get_args(get_args(parameter.annotation)[0])]
        metavar = str(getattr(told(parameter.annotation), "metavar", None) or "")
        if Path in kinds or NAMES_A_FILE.search(metavar):
            assert file_mark(parameter.annotation) is not None, f"{name} of {' '.join(words)}"
        if isinstance(file_mark(parameter.annotation), Writes):
            assert "overwrite" in inspect.signature(COMMANDS[words]).parameters


def given_as(name: str, parameter: inspect.Parameter, value: str) -> tuple[list[str], list[str]]:
    """Arguments and options that give a parameter a value."""
    option = told(parameter.annotation)
    names = [n for n in (option.default, *(option.param_decls or ())) if isinstance(n, str) and n.startswith("--")]
    if type(option).__name__ == "ArgumentInfo":
        return [value], []
    return [], [names[0] if names else f"--{name.replace('_', '-')}", value]


def pairs() -> list[tuple[tuple[str, ...], str, str]]:
    """Command, an option that writes, and another that reads or writes."""
    found = []
    for words, function in COMMANDS.items():
        marks = {n: file_mark(p.annotation) for n, p in inspect.signature(function).parameters.items()}
        written = [n for n, mark in marks.items() if isinstance(mark, Writes) and not mark.folder]
        files = [n for n, mark in marks.items() if mark is READS or n in written]
        going_on = {(n, marks[n].goes_on) for n in written}  # type: ignore[union-attr]
        found += [(words, n, m) for n in written for m in files if n != m and (n, m) not in going_on]
    return found


SPELLINGS = ("mine", "./x/../mine", "hard", "soft", "{}/mine")


@pytest.mark.parametrize(
    ("words", "written", "other", "spellings"),
    [
        case
        for k, pair in enumerate(pairs())
        for case in ((*pair, SPELLINGS[k % 5 :][:1]), pytest.param(*pair, SPELLINGS, marks=pytest.mark.full))
    ],
)
def test_no_output_is_an_input_or_another_output(
    words: tuple[str, ...],
    written: str,
    other: str,
    spellings: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Under another spelling too, and though everything may be overwritten."""
    monkeypatch.chdir(tmp_path)
    Path("mine").write_bytes(PRECIOUS)
    os.link("mine", "hard")
    Path("soft").symlink_to("mine")
    parameters = inspect.signature(COMMANDS[words]).parameters
    for spelling in (text.format(tmp_path) for text in spellings):
        arguments, options = [], ["--overwrite"]
        for name, parameter in parameters.items():
            required = parameter.default is inspect.Parameter.empty
            if name in (written, other) or required:
                value = {written: spelling, other: "mine"}.get(name, "levels=4" if name == "sweep" else "unused")
                more, others = given_as(name, parameter, value)
                arguments, options = arguments + more, options + others
        with pytest.raises(SystemExit) as caught:
            cli.main([*words, *arguments, *options])
        error = capsys.readouterr().err
        assert caught.value.code == 2, error
        assert "be another file than" in error
        assert error.count("\n") == 1
    assert Path("mine").read_bytes() == PRECIOUS
    assert sorted(os.listdir()) == ["hard", "mine", "soft"]


def of_json(path: Path) -> None:
    write_json(path, {"a": 1})


WRITERS: dict[str, Callable[[Path], object]] = {
    "json": of_json,
    "device": lambda path: DeviceModel().to_json(path),
    "netlist": lambda path: write_netlist(path, Parts((), {})),
    "run": lambda path: write_run(path, Run({"kind": "simulation"})),
}


def judged(write: Callable[[Path], object], command: str, path: Path, overwrite: bool = False) -> None:
    """Write a file in the name of a command."""
    with writing(command, overwrite=overwrite):
        claim("path", path)
        write(path)


@pytest.mark.parametrize("name", WRITERS)
def test_only_the_same_command_replaces_its_files(name: str, tmp_path: Path) -> None:
    """Each format says who wrote it; other commands, and users, keep what is theirs."""
    path, write = tmp_path / "file", WRITERS[name]
    judged(write, "physics-ep one", path)
    assert origin_of(path).command == "physics-ep one"
    judged(write, "physics-ep one", path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"Argument path must be a new file .*which physics-ep one wrote"):
        judged(write, "physics-ep two", path)
    assert path.read_bytes() == before
    path.write_bytes(PRECIOUS)
    with pytest.raises(InputError, match="which holds something else"):
        judged(write, "physics-ep one", path)
    assert path.read_bytes() == PRECIOUS
    judged(write, "physics-ep one", path, overwrite=True)
    assert origin_of(path).command == "physics-ep one"
    assert os.listdir(tmp_path) == ["file"]


def test_python_calls_are_guarded_too(tmp_path: Path) -> None:
    """Each call that writes refuses a file that it did not write, unless it is told to overwrite."""
    path = tmp_path / "mine"
    writers = [
        lambda **o: DeviceModel().to_json(path, **o),
        lambda **o: write_netlist(path, Parts((), {}), **o),
        lambda **o: write_run(path, Run(), **o),
        lambda **o: TrajectoryWriter(path, "free", ("", "", "", ""), **o),
    ]
    for write in writers:
        path.write_bytes(PRECIOUS)
        with pytest.raises(InputError, match=r"must be a new file \(overwrite=True replaces what is there\)"):
            write()
        assert path.read_bytes() == PRECIOUS
        write(overwrite=True)


def test_trained_weights_stay(tmp_path: Path) -> None:
    """Not even the command that trained replaces a training, unless it goes on with it or is told to."""
    path, other = tmp_path / "run.h5", tmp_path / "other.h5"
    for place in (path, other):
        judged(lambda p: write_run(p, Run({"kind": "training"})), "physics-ep train", place)
    with writing("physics-ep train", inputs={"resume": other}) as call:
        with pytest.raises(InputError, match="must be a new file"):
            call.claim("out", path, goes_on=other)
        call.claim("out", tmp_path / "." / "other.h5", goes_on=other)
    with writing("physics-ep train", overwrite=True) as call:
        call.claim("out", path)


def test_links_lead_to_what_is_replaced(tmp_path: Path) -> None:
    """A link to a file on another disk stays a link; what it leads to is judged, and replaced."""
    (tmp_path / "disk").mkdir()
    link, there = tmp_path / "latest.json", tmp_path / "disk" / "figures.json"
    link.symlink_to(there)
    write_json(claim("json", link), {"a": 1})
    write_json(claim("json", link), {"a": 2})
    assert link.is_symlink()
    assert json.loads(there.read_text(encoding="utf-8"))["a"] == 2
    there.write_bytes(PRECIOUS)
    with pytest.raises(InputError, match="must be a new file"):
        claim("json", link)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(InputError, match="Argument json must be"):
        claim("json", loop)


def test_read_only_files_and_folders_stay(tmp_path: Path) -> None:
    """Root could write them; nobody who takes the write permission away wants that."""
    path = tmp_path / "figures.json"
    write_json(path, {"a": 1})
    path.chmod(0o444)
    with writing("physics-ep", overwrite=True) as call, pytest.raises(InputError, match="is read-only"):
        call.claim("json", path)
    (tmp_path / "shut").mkdir(mode=0o555)
    with pytest.raises(InputError, match="is read-only"):
        claim("json", tmp_path / "shut" / "new.json")


def test_permissions_of_a_replaced_file_stay(tmp_path: Path) -> None:
    """A file that only its owner may read is not published by writing it again."""
    path = tmp_path / "figures.json"
    write_json(path, {"a": 1})
    path.chmod(0o600)
    write_json(path, {"a": 2})
    assert path.stat().st_mode & 0o777 == 0o600


def test_devices_pipes_and_what_is_no_path_are_refused(tmp_path: Path) -> None:
    """A device or a pipe would be replaced by a file; a number would be taken for an open file."""
    os.mkfifo(tmp_path / "pipe")
    for bad in (tmp_path / "pipe", "/dev/null", "/dev/full", tmp_path, "a\0b", "", 1, None, True, b"name"):
        with pytest.raises(InputError, match=r"Argument json must be a (file|path)"):
            claim("json", bad)  # type: ignore[arg-type]
    for bad in (1, None, "a\0b", "", b"name", 3.5):
        with pytest.raises(InputError, match="Argument path must be a path"):
            open_run(bad)  # type: ignore[arg-type]


def test_what_is_read_on_the_way_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A netlist that another one includes is an input, though no option names it."""
    inner, outer = tmp_path / "inner.cir", tmp_path / "outer.cir"
    inner.write_text("* part\nR1 a 0 1k\n", encoding="utf-8")
    outer.write_text(f"title\nV1 a 0 1\n.include {inner}\n.end\n", encoding="utf-8")
    before = inner.read_bytes()
    for option in (["--out", str(inner)], ["--json", str(inner)]):
        with pytest.raises(SystemExit) as caught:
            cli.main(["spice", "import", str(outer), *option, "--overwrite"])
        assert caught.value.code == 2
        assert "be another file than FILE.cir, which is read" in capsys.readouterr().err
    assert inner.read_bytes() == before


def test_each_of_several_style_sheets_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An option that may be given often reads all its files; a style sheet of a figure is not written over."""
    first, second = tmp_path / "first.mplstyle", tmp_path / "second.mplstyle"
    for sheet in (first, second):
        sheet.write_text("font.size: 7\n", encoding="utf-8")
    styles = ["--style", str(first), "--style", "ggplot", "--style", str(second)]
    for sheet in (first, second):
        with pytest.raises(SystemExit) as caught:
            cli.main(["figure", "holomorphic_map", *styles, "--json", str(sheet), "--overwrite"])
        assert caught.value.code == 2
        assert "be another file than style, which is read" in capsys.readouterr().err
        assert sheet.read_text(encoding="utf-8") == "font.size: 7\n"


def test_names_of_nudged_phases_are_outputs_too(tmp_path: Path) -> None:
    """A netlist of a nudged phase takes no user's file, and is no other name of that of the free phase."""
    (tmp_path / "own_plus.cir").write_bytes(PRECIOUS)
    (tmp_path / "link_plus.cir").symlink_to(tmp_path / "link.cir")
    for name, reason in (("own.cir", "must be a new file"), ("link.cir", "be another file than path")):
        with pytest.raises(InputError, match=reason):
            export_phases(tmp_path / name, Parts(("a",), {}), ("a",), (0.1,), 1e-3)
    assert sorted(os.listdir(tmp_path)) == ["link_plus.cir", "own_plus.cir"]
    assert (tmp_path / "own_plus.cir").read_bytes() == PRECIOUS


@pytest.mark.full
def test_derived_names_are_outputs_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Netlists of nudged phases take names of their own: no input, no other output and no user's file is there."""
    (tmp_path / "own_plus.cir").write_bytes(PRECIOUS)
    for arguments, reason in (
        (["bridge", "own.cir"], "must be a new file"),
        (["bridge", "n.cir", "--json", "n_minus.cir"], "be another file than json"),
    ):
        paths = [str(tmp_path / a) if "." in a else a for a in arguments]
        with pytest.raises(SystemExit) as caught:
            cli.main(["spice", "export", *paths])
        assert caught.value.code == 2
        assert reason in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["own_plus.cir"]
    assert (tmp_path / "own_plus.cir").read_bytes() == PRECIOUS


def test_files_of_a_folder_that_is_read_stay(tmp_path: Path) -> None:
    """Data are read from a folder: what is in it is an input, but for files that the command itself wrote there."""
    (tmp_path / "train-images").write_bytes(PRECIOUS)
    with writing("physics-ep train", overwrite=True, inputs={"data": tmp_path}) as call:
        with pytest.raises(InputError, match="be no file of the folder that data reads"):
            call.claim("json", tmp_path / "train-images")
        write_json(call.claim("json", tmp_path / "new.json", own=True), {})
    with writing("physics-ep train", inputs={"data": tmp_path}) as call:
        call.claim("json", tmp_path / "new.json")


def test_a_folder_of_parts_is_removed_only_if_it_is_one(tmp_path: Path) -> None:
    """RUN.h5.parts of a user, or of a sweep, is not taken for what a killed simulation has left."""
    path = tmp_path / "run.h5"
    folder = parts_folder(path)
    folder.mkdir()
    units = ("", "", "", "")
    for name, write in (
        ("notes.txt", lambda p: p.write_bytes(PRECIOUS)),
        ("000000.h5", lambda p: write_run(p, Run({"kind": "point of a tolerance sweep"}))),
    ):
        write(folder / name)
        with (
            pytest.raises(InputError, match=f"holds '{name}', which is no part of a trajectory"),
            TrajectoryWriter(path, "free", units),
        ):
            pass
        assert os.listdir(folder) == [name]
        (folder / name).unlink()
    write_run(folder / "000000.h5", Run({"kind": "part of a trajectory"}, state_dict={"w": torch.zeros(1)}))
    with TrajectoryWriter(path, "free", units):
        assert os.listdir(folder) == []
    assert os.listdir(tmp_path) == []

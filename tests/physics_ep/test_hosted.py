"""Systems of the CPU: a command that is given another device says so at once, and names what runs where."""

from __future__ import annotations

import inspect
import os
import re
import resource
import subprocess
import sys
import time
import typing
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from physics_ep import cli, hosted, registry
from physics_ep.errors import InputError
from physics_ep.hosted import require_host
from physics_ep.placement import OnHost
from tests.support.paths import ROOT
from tests.support.processes import LIMIT

REFUSED = (
    r"Argument device must be 'cpu' for 'analog-hopfield', which .* \(HopfieldNetwork computes on any device\)"
)


ON_A_DEVICE = '[system]\nname = "analog-hopfield"\n[training]\ndevice = "cuda"\n'


@pytest.mark.parametrize(
    "words",
    [
        ["train", "analog-hopfield-digits", "--out", "run.h5", "--device", "cuda"],
        pytest.param(["gradients", "analog-hopfield", "--device", "cuda"], marks=pytest.mark.full),
        pytest.param(["simulate", "mine.toml", "--out", "run.h5"], marks=pytest.mark.full),
        ["train", "mine.toml", "--out", "run.h5"],
        pytest.param(["in-situ", "mine.toml", "--out", "run.h5"], marks=pytest.mark.full),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_a_command_refuses_a_device_before_it_imports_torch(words: list[str], tmp_path: Path) -> None:
    """It took 2 s, nearly all of them torch's import, and blamed a machine without a GPU first.

    Processor time of the whole process, Python's start included: a second is the promise, 0.3 s the habit.
    """
    (tmp_path / "mine.toml").write_text(ON_A_DEVICE, encoding="utf-8")
    script = (
        "import sys\nfrom physics_ep import cli\ntry: cli.main()\n"
        "finally: print('HEAVY', sorted({'torch', 'numpy', 'h5py', 'numba'} & set(sys.modules)))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2, done.stderr
    refused = REFUSED if "--device" in words else REFUSED.replace("device", r"training\.device", 1)
    assert re.fullmatch(rf"physics-ep: error: {refused}, but was 'cuda'\.\n", done.stderr)
    assert "HEAVY []" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_a_machine_without_a_gpu_does_not_hide_what_runs_where() -> None:
    """torch's own error came first there, "Torch not compiled with CUDA enabled", as if a GPU would help."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    must = r"^Argument device must be 'cpu' for Linear, which solves by LAPACK there, but was another \(.+\)\.$"

    class Linear(OnHost, torch.nn.Linear):
        on_host = "solves by LAPACK there"

    system = Linear(2, 2)
    for move in (lambda: system.to("cuda"), system.cuda, lambda: system.to("cuda:1", torch.float64)):
        with pytest.raises(InputError, match=must):
            move()
    assert system.weight.dtype == torch.float32
    assert system.double().cpu().weight.dtype == torch.float64


@pytest.mark.parametrize("subject", ["analog-hopfield", "analog-hopfield-digits"])
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_every_name_of_the_system_is_refused(subject: str, device: str) -> None:
    """A registered name and the bundled configs of it."""
    with pytest.raises(InputError, match=f"{REFUSED}, but was '{device}'"):
        require_host(subject, device)


def test_overrides_tell_the_system_and_the_device() -> None:
    """Each half may come from --set; --device goes before [training]."""
    refused = REFUSED.replace("device", r"training\.device", 1)
    with pytest.raises(InputError, match=f"{refused}, but was 'cuda:1'"):
        require_host("analog-hopfield-digits", None, ["training.device=cuda:1"], training=True)
    with pytest.raises(InputError, match=f"{REFUSED}, but was 'cuda'"):
        require_host("hopfield-digits", "cuda", ['system.name = "analog-hopfield"', "training.device=cpu"])


@pytest.mark.full
@pytest.mark.parametrize(
    "words", [["import", "bridge"], ["export", "resistive", "pairs.cir"], ["check", "resistive"]]
)
def test_netlists_refuse_a_device_at_once(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """In a sentence that says what runs where; before anything is read or written."""
    begun = time.process_time()
    with pytest.raises(SystemExit) as ended:
        cli.main(["spice", *words, "--device", "cuda"])
    assert ended.value.code == 2
    assert re.search(r"device must be 'cpu', where netlists .* compute on any device\)", capsys.readouterr().err)
    assert time.process_time() - begun < 1


def test_what_runs_anywhere_or_cannot_be_told_is_left_to_the_command(tmp_path: Path) -> None:
    """Other systems, the CPU, overrides of the system, files that are wrong or no configs: no word of ours."""
    for subject in ("hopfield", "pcn-digits", "nothing", "", "run.h5", "mine.py:build", None):
        require_host(subject, "cuda")
    for device in (None, "cpu", "cpu:0"):
        require_host("analog-hopfield", device)
    require_host("analog-hopfield-digits", "cuda", ["system.name=hopfield"])
    for wrong in ("system.name", "system=3", "system..name=3"):
        require_host("hopfield-digits", "cuda", [wrong, "system.name=analog-hopfield"])
    for place in (None, "cpu"):
        require_host("analog-hopfield-digits", place, ["training.device=cuda"], training=place is not None)
    file = tmp_path / "mine.toml"
    for text in ("[system", "", "system = 3", "[system]", "[system]\nname = 3", "[system]\nname = []"):
        file.write_text(text, encoding="utf-8")
        require_host(str(file), "cuda")
    require_host(str(tmp_path), "cuda")
    require_host(str(tmp_path / "missing.toml"), "cuda")


def test_the_table_says_what_the_systems_say() -> None:
    """A registered system that computes on the CPU only has a row, with its own sentence, and no other has one."""
    rows = registry.hosted()
    for name, entry in registry.systems().items():
        build = registry.load(entry)
        made = build if inspect.isclass(build) else typing.get_type_hints(build)["return"]
        assert (name in rows) == issubclass(made, OnHost), name
        if name in rows:
            assert registry.load(rows[name]) == made.on_host
    assert rows.keys() <= registry.systems().keys()


def test_systems_of_other_packages_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is a group of entry points, as that of the systems is."""
    row = EntryPoint("hopfield", "hardware_models.hopfield.hosted:UNIT_GRAPHS", "physics_ep.hosted")
    monkeypatch.setattr(hosted, "hosted", lambda: {"hopfield": row})
    with pytest.raises(InputError, match="must be 'cpu' for 'hopfield', which sweeps its units"):
        require_host("hopfield-digits", "cuda")

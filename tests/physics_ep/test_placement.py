"""Whether there is memory is told before work, with what would fit; else a process is killed in its middle."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
from pathlib import Path

import pytest
import torch

from hardware_models import HopfieldNetwork
from physics_ep import cli, placement
from physics_ep.errors import InputError
from physics_ep.placement import STEP_NUMBERS, available_memory, keep_memory, require_room

CPU = torch.device("cpu")


def test_a_limit_of_addresses_counts() -> None:
    """`ulimit -v`, and schedulers that set it: what the machine has beyond that cannot be had."""
    child = os.fork()
    if not child:
        held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + 2**26, resource.RLIM_INFINITY))
        there = available_memory(CPU)
        os._exit(0 if there is not None and 0 < there <= 2**26 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_would_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound itself is taken, one more is not; starts count as examples."""
    system = HopfieldNetwork([6, 8, 2])
    monkeypatch.setattr(placement, "available_memory", lambda device: 100 * STEP_NUMBERS * 16 * 4)
    sample = torch.zeros(1, 6)
    require_room("batch", 100, system, sample)
    require_room("batch", 50, system, sample, each=2)
    with pytest.raises(InputError, match=r"^Argument batch must be at most 100, .* free, but was 101 \("):
        require_room("batch", 101, system, sample)
    with pytest.raises(InputError, match="at most 50,"):
        require_room("batch", 51, system, sample, each=2)


WIDE = """
system = {name = "NAME", sizes = [65, 20, 10]}
data = {train_examples = 320, test_examples = 320}
training = {batch_size = 320}
"""


@pytest.mark.parametrize(
    "line",
    [
        "gradients CONFIG --batch 5000",
        "tolerance CONFIG --sweep levels=4 --batch 5000",
        "map CONFIG --batch 50000",
        pytest.param("train CONFIG --set system.sizes=[64,20,10]", marks=pytest.mark.full),
        pytest.param("simulate CONFIG --out run.h5 --examples 320", marks=pytest.mark.full),
        pytest.param("spice check CONFIG --batch 5000", marks=pytest.mark.full),
        pytest.param("spice check pcn --substrate resistive --batch 5000", marks=pytest.mark.full),
    ],
)
def test_commands_refuse_batches_before_work(
    line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2 and one line with what would fit; nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(placement, "available_memory", lambda device: 10**6)
    command, config = line.split(maxsplit=1)[0], tmp_path / "wide.toml"
    system = {"map": "pcn", "tolerance": "pcn", "spice": "resistive"}.get(command, "hopfield")
    sizes = "[64, 20, 10]" if command == "simulate" else "[65, 20, 10]"
    config.write_text(WIDE.replace("NAME", system).replace("[65, 20, 10]", sizes), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        cli.main([word if word != "CONFIG" else str(config) for word in line.split()])
    error = capsys.readouterr().err
    assert stop.value.code == 2, error
    assert "must be at most" in error or "Too little memory" in error
    assert "free" in error and error.count("\n") == 1  # noqa: PT018
    assert [path.name for path in tmp_path.iterdir()] == ["wide.toml"]


@pytest.mark.full
@pytest.mark.parametrize("command", ["gradients", "map"])
def test_weights_are_counted_before_they_are_made(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command that builds a system counts them, not trainings alone."""
    monkeypatch.setattr(placement, "available_memory", lambda device: 10**9)
    config = tmp_path / "wide.toml"
    config.write_text('system = {name = "pcn", sizes = [64, 20000, 20000, 10]}\n', encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        cli.main([command, str(config)])
    assert stop.value.code == 2
    assert "401480000 weights need 1.50 GiB" in capsys.readouterr().err


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="keeps memory by asking glibc")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    """Blocks as steps make them, 20 MB in all, come back without a page that the system fills anew (some 5000)."""
    keep_memory()

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [torch.ones(2**18) for _ in range(20)]
        del blocks
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert min(faults() for _ in range(4)) < 500  # a heap with gaps takes a round or two to hold all blocks


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library without `mallopt` (musl, macOS) ends no training."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_memory()

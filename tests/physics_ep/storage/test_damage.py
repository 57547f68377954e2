"""Damage is seen: if these fail, changed bytes become numbers of a run, or a damaged file never ends loading."""

from __future__ import annotations

import json
import os
import random
import shutil
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from physics_ep import cli, open_run, simulate
from physics_ep.errors import InputError
from physics_ep.storage.outputs import OutputWarning
from physics_ep.storage.run_file import Quantity, Run, write_run
from physics_ep.storage.sealed import BLOCK, seal, verify_seal
from tests.support.paths import ROOT
from tests.support.systems import batch, network

OLD = ROOT / "tests" / "data" / "before_folders"


@pytest.fixture(scope="module")
def run_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A training with weights and state, and a trajectory that is mapped."""
    folder = tmp_path_factory.mktemp("whole")
    weights = {"w": torch.randn(40, 30), "b": torch.zeros(30)}
    metrics = {"loss": Quantity(np.arange(5.0), "1", "loss")}
    write_run(folder / "run.h5", Run({"kind": "training", "epochs": 5}, metrics, weights, {"optimizer": [weights]}))
    simulate(network("tanh", (5, 6, 3)), batch(5, 3, 4)[0], 2.0, steps=40, out=folder / "trajectory.h5")
    return [folder / "run.h5", folder / "trajectory.h5"]


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content with one fault of a disk or a copy: a bit, a block of zeros, an end, or two blocks swapped."""
    raw, kind = bytearray(content), draw.choice(("bit", "byte", "zeros", "end", "more", "swap"))
    place, size = draw.randrange(len(raw)), draw.choice((64, 512, 4096))
    if kind == "bit":
        raw[place] ^= 1 << draw.randrange(8)
    elif kind == "byte":
        raw[place] = (raw[place] + draw.randrange(1, 256)) % 256
    elif kind == "zeros":
        raw[place : place + size] = bytes(len(raw[place : place + size]))
    elif kind == "end":
        del raw[place:]
    elif kind == "more":
        raw += bytes(size)
    else:
        other = draw.randrange(len(raw))
        raw[place : place + 64], raw[other : other + 64] = raw[other : other + 64], raw[place : place + 64]
    return bytes(raw)


@pytest.mark.parametrize("count", [120, pytest.param(3000, marks=pytest.mark.full)])
def test_no_damage_is_silent(run_files: list[Path], count: int, tmp_path: Path) -> None:
    """Bits, blocks and ends of files, drawn at random: all refused in one line, before HDF5 sees them."""
    draw, path = random.Random(count), tmp_path / "damaged.h5"
    for whole in run_files:
        content = whole.read_bytes()
        for _ in range(count // 2):
            wrong = damaged(content, draw)
            if wrong == content:
                continue
            path.write_bytes(wrong)
            with pytest.raises(InputError, match="damaged or truncated") as caught:
                open_run(path)
            assert "\n" not in str(caught.value)
    assert verify_seal(whole) is not None


def test_every_bit_of_the_block_counts(run_files: list[Path], tmp_path: Path) -> None:
    """The block that holds the digest is no place where damage may hide."""
    content, path = run_files[0].read_bytes(), tmp_path / "damaged.h5"
    for place in range(0, BLOCK, 3):
        raw = bytearray(content)
        raw[place] ^= 1 << place % 8
        path.write_bytes(raw)
        with pytest.raises(InputError, match="damaged or truncated"):
            open_run(path)


def test_pieces_are_hashed_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of many pieces, hashed by several threads, has one digest; swapped pieces have another."""
    monkeypatch.setattr("physics_ep.storage.sealed.PIECE", 4096)
    path = tmp_path / "run.h5"
    write_run(path, Run(state_dict={"w": torch.randn(20_000)}))
    assert verify_seal(path) == verify_seal(path)
    raw = bytearray(path.read_bytes())
    first, second = BLOCK + 4096 * 3, BLOCK + 4096 * 5
    raw[first : first + 4096], raw[second : second + 4096] = (
        raw[second : second + 4096], raw[first : first + 4096],
    )  # fmt: skip
    path.write_bytes(raw)
    with pytest.raises(InputError, match="damaged"):
        open_run(path)


def test_other_programs_read_the_file(run_files: list[Path]) -> None:
    """The digest is in the user block, which HDF5 passes over; the first lines tell who wrote the file."""
    for path in run_files:
        with h5py.File(path, "r") as file:
            assert file.attrs["format"] == "physics-ep run"
            assert file.userblock_size == BLOCK
        assert path.read_bytes().startswith(b"physics-ep run file\ncommand: physics_ep.")


def test_files_from_before_open_with_a_note(tmp_path: Path) -> None:
    """They have no digest; their numbers are as they were."""
    for name in ("training.h5", "trajectory.h5"):
        path = shutil.copy(OLD / name, tmp_path)
        with pytest.warns(OutputWarning, match="before run files had digests"):
            run = open_run(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", OutputWarning)
            again = open_run(path, verify=False)
        assert run.attributes == again.attributes


def test_without_a_check_files_still_open(run_files: list[Path], tmp_path: Path) -> None:
    """What is left of a damaged file can be had by who asks for it."""
    raw, path = bytearray(run_files[1].read_bytes()), tmp_path / "damaged.h5"
    with h5py.File(run_files[1]) as file:
        held = file["trajectories/free/energy"]
        energy, place = held[()], held.id.get_offset()
    raw[place] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="damaged"):
        open_run(path)
    found = open_run(path, verify=False).trajectories["free"].energy.numpy()
    assert np.count_nonzero(found != energy) == 1


def test_the_command_tells_whole_from_damaged(
    run_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run verify` ends with status 0 for a whole file, and with 2 for a damaged one."""
    figures, path = tmp_path / "figures.json", tmp_path / "run.h5"
    shutil.copy(run_files[0], path)
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", "verify", str(path), "--json", str(figures)])
    assert not caught.value.code
    assert "whole, sha256" in capsys.readouterr().out
    told = json.loads(figures.read_text(encoding="utf-8"))
    assert told["files"][0]["sha256"] == verify_seal(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", "verify", str(path)])
    assert caught.value.code == 2
    assert "bytes)" in capsys.readouterr().err


def links(kind: str, file: h5py.File, secret: Path) -> None:
    """Put something into a run file that leads out of it, or promises what is not there."""
    if kind == "external link":
        file["weights/secret"] = h5py.ExternalLink(str(secret), "/data")
    elif kind == "soft link":
        file["weights/secret"] = h5py.SoftLink("/weights/w")
    elif kind == "external storage":
        file.create_dataset("weights/secret", (4,), "f4", external=[(str(secret), 0, 16)])
    elif kind == "virtual":
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "data", (4,))
        file.create_virtual_dataset("weights/secret", layout)
    elif kind == "empty promise":
        file.create_dataset("weights/secret", (2**40,), "f4", chunks=(2**20,))
    else:
        file["metrics/again"] = file["metrics"]


@pytest.mark.parametrize(
    "kind", ["external link", "soft link", "external storage", "virtual", "empty promise", "a group within itself"]
)
def test_files_do_not_lead_out_of_themselves(kind: str, run_files: list[Path], tmp_path: Path) -> None:
    """A file from a stranger, with a digest in order, reads no other files and does not run for ever."""
    secret, path = tmp_path / "secret.h5", tmp_path / "run.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.ones(4, "f4")
    shutil.copy(run_files[0], path)
    with h5py.File(path, "a") as file:
        links(kind, file, secret)
    seal(path, "a stranger", "training")
    for verify in (True, False):
        with pytest.raises(InputError, match="Run file") as caught:
            open_run(path, verify=verify)
        assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["run.h5", "secret.h5"]

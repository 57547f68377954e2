"""The trials of what is promised of files, processes and hostile input. If these fail, a fault passes unseen."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from validation.fuzz.children import Ended, run_child
from validation.fuzz.commands import option_table
from validation.fuzz.damages import KINDS, damaged
from validation.fuzz.endings import COMMANDS
from validation.fuzz.lines import BASES, draw_line, of_words

LONG = {"signature", "bench", "demo", "reproduce", "spice check"}
"""Commands that take minutes, or write nothing: they are ended by no signal here."""


def test_every_command_and_option_is_tried() -> None:
    """A command, or an option, that is new and in no case would be promised and not tried."""
    table = option_table()
    assert set(BASES) == set(table)
    assert set(COMMANDS) | LONG == set(table)
    drawn = [draw_line(random.Random(k)) for k in range(1500)]
    words = {word.partition("=")[0] for line in drawn for word in line.words if word.startswith("--")}
    options = {option.name for row in table.values() for option in row if not option.is_argument}
    assert options - words <= {"--download", "--scheduler", "--film", "--html"}
    assert any(line.wrong for line in drawn)


def test_cases_come_from_the_seed() -> None:
    """If it fails, a fault that was found cannot be found again."""
    for k in range(20):
        assert draw_line(random.Random(k)) == draw_line(random.Random(k))


def test_how_a_process_ends_is_seen(tmp_path: Path) -> None:
    """Status, words, signals that come or do not, crashes, and limits of the system."""
    folder = tmp_path / "case"
    folder.mkdir()

    def ignores() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)

    def writes() -> None:
        Path("large").write_bytes(bytes(10_000))

    assert run_child(lambda: sys.exit(2), folder).status == 2
    assert "KeyError" in run_child(lambda: {}["x"], folder).error
    assert run_child(lambda: os.kill(os.getpid(), signal.SIGKILL), folder).status == -signal.SIGKILL
    late = run_child(lambda: time.sleep(600), folder, seconds=0.1)
    assert (late.status, late.late, late.stuck) == (-signal.SIGTERM, True, False)
    assert run_child(ignores, folder, seconds=0.5, grace=0.2).stuck
    assert run_child(writes, folder, limits={resource.RLIMIT_FSIZE: 5000}).status == 70
    assert (folder / "large").stat().st_size <= 5000


@pytest.mark.parametrize(
    ("status", "error", "broken"),
    [
        (0, "", False),
        (2, "physics-ep: error: Argument seed must be an integer, but was 'x'.\n", False),
        (2, "physics-ep: note: a lock\nphysics-ep: error: x\n", False),
        (1, "Traceback (most recent call last):\n  x\nphysics-ep: error: x\n", True),
        (1, "physics-ep: error: KeyError: 'x' (--verbose shows where)\n", True),
        (2, "", True),
        (2, "physics-ep: error: x\nmore\n", True),
        (0, "physics-ep: error: x\n", True),
    ],
)
def test_words_of_an_error_are_judged(status: int, error: str, broken: bool) -> None:
    """One line that begins with the program, after notes; no traceback, and no error without words."""
    assert bool(list(of_words(Ended(status, "", error, 0.1, False, False)))) is broken


def test_damage_changes_the_file() -> None:
    """A damage that changes nothing would count as refused in vain, or as silent."""
    content, draw = random.Random(0).randbytes(9000), random.Random(1)
    for kind in KINDS:
        assert any(damaged(content, draw, kind) != content for _ in range(20)), kind


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        "--commands 400",
        "--calls 200",
        "--damages 300",
        "--kills 100",
        "--terms 20 --hangups 10",
        "--disks 20 --memory 20",
    ],
)
def test_promises_hold(asked: str) -> None:
    """Every case of one seed, once a week."""
    words = [*asked.split(), "--seed", str(int(time.time()) // 604_800)]
    done = subprocess.run(
        [sys.executable, "-m", "validation.fuzz", *words], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout

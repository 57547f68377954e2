"""The command `physics-ep`: gathers the commands of all packages, and ends bad input in one line.

Nothing heavy may be imported here: `physics-ep --help` answers in a third of a second.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from . import registry
from .errors import InputError
from .processes import Ending
from .version import __version__

if TYPE_CHECKING:
    import typer

NAME = "physics-ep"
BAD_INPUT = 2
INTERRUPTED = 130
FAILED = 1
FORMER = {"--checkpoint": "--weights"}
"""Options by their former names, which are accepted and not shown."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit.

    Exit status 0: done; 1: the work itself failed (no convergence, a limit missed); 2: bad input; 130: interrupted;
    143 and 129: ended by SIGTERM and SIGHUP, which are taken as Ctrl-C is.
    An exception with an attribute `exit_status` sets the status itself.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: the command line.
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    given = [_by_its_name(part) for part in given]
    with Ending() as ending:
        _run(given, ending)


def _run(given: list[str], ending: Ending) -> NoReturn:
    failures: dict[str, str] = {}
    with suppress(AttributeError):  # not a stream of Python's own
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names of files may be any bytes
    try:
        status = application(failures)(args=given, prog_name=NAME, standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except KeyboardInterrupt:
        _end("interrupted", ending.status or INTERRUPTED)
    except SystemExit as stop:
        # typer ends Ctrl-C with the status alone.
        if stop.code == INTERRUPTED:
            _end("interrupted", ending.status or INTERRUPTED)
        raise
    except BrokenPipeError:
        # The reader (head, less) has gone; say nothing, and keep Python from saying it at exit.
        sys.stderr.close()
        sys.exit(FAILED)
    except Exception as error:
        if "--verbose" in given:
            traceback.print_exc()
        message, status = _verdict(error, failures)
        if ending.pressed and status == FAILED and not hasattr(error, "exit_status"):
            message, status = "interrupted", INTERRUPTED  # what a library makes of Ctrl-C
        _end(message, ending.status if ending.status and status == INTERRUPTED else status)


def _by_its_name(part: str) -> str:
    """A part of the command line, options by their names of today."""
    option, sign, value = part.partition("=")
    return f"{FORMER.get(option, option)}{sign}{value}"


def application(failures: dict[str, str]) -> typer.Typer:
    """The typer application with every command that can be loaded.

    Parameters
    ----------
    failures : dict
        Filled with the entries that cannot be loaded, and why; a broken plug-in must not take the others down.
    """
    import typer

    app = typer.Typer(
        name=NAME,
        help="Simulate neuromorphic hardware as it learns: energy systems trained by equilibrium propagation.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    for name, entry in registry.commands().items():
        try:
            registry.load(entry)(app)
        except InputError as error:
            failures[name] = _one_line(error)
        except Exception as error:
            failures[name] = f"Entry {name!r} of {entry.group} ({entry.value}) fails: {_one_line(error)}."
    epilog = "".join(f"{why}\n\n" for why in failures.values())

    @app.callback(epilog=epilog)
    def options(
        version: bool = typer.Option(
            False, "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ) -> None:
        pass

    return app


def _print_version(asked: bool) -> None:
    if asked:
        import typer

        typer.echo(f"{NAME} {__version__}")
        raise typer.Exit


def _verdict(error: Exception, failures: dict[str, str]) -> tuple[str, int]:
    """Message and exit status of an exception."""
    if isinstance(error, InputError):
        return _one_line(error), BAD_INPUT
    if hasattr(error, "format_message"):  # typer's usage errors; their class moved between its versions
        message = _one_line(error.format_message())
        if "No such command" in message:
            message += "".join(f" {why}" for why in failures.values())
        return message, BAD_INPUT
    if hasattr(error, "exit_status"):
        return _one_line(error), int(error.exit_status)
    if type(error).__name__ == "Abort":  # what older versions of typer make of Ctrl-C
        return "interrupted", INTERRUPTED
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        return f"Out of memory: {_one_line(error) or 'use a smaller batch, system or data set'}", BAD_INPUT
    if isinstance(error, OSError):
        return _one_line(error), BAD_INPUT
    if any(kind.__name__ == "NotConverged" for kind in type(error).__mro__):
        return _one_line(error), FAILED
    return f"{type(error).__name__}: {_one_line(error)} (--verbose shows where)", FAILED


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _end(message: str, status: int) -> NoReturn:
    print(f"{NAME}: error: {message}", file=sys.stderr)
    sys.exit(status)

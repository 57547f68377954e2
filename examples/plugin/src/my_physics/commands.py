"""A command of the package's own."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add `physics-ep hello`."""

    @app.command()
    def hello() -> None:
        """Say that the package is there."""
        typer.echo("my_physics is installed")

"""What training calls as it goes: derive from `Callback`, and give it to `train(config, callbacks=[...])`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import argument_error
from ..estimators.step import StepLike
from ..physical_system import PhysicalSystem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..config import Config


class Callback:
    """Something to do while a system is trained. All methods do nothing unless they are overridden.

    Callbacks are called in their order, on every process where several train one system. What they raise ends the
    training; the run file keeps the epochs that are complete.

    Examples
    --------
    Stop once the training error is below one per cent:

    >>> class GoodEnough(Callback):
    ...     def on_epoch(self, system, epoch, figures):
    ...         return figures["train_error"] < 0.01
    """

    def on_begin(self, system: PhysicalSystem, config: Config, past: Sequence[dict[str, Any]]) -> None:
        """Called once, before the first batch.

        Parameters
        ----------
        system : EnergySystem or VectorField
            The system with the weights that training begins with.
        config : Config
            The config with all defaults filled in.
        past : sequence of dict
            The figures of each epoch that a resumed run keeps, as `on_epoch` had them; empty in a new run.
        """

    def on_step(self, system: PhysicalSystem, epoch: int, batch: int, step: StepLike) -> None:
        """Called after each batch, once the weights have been changed.

        Parameters
        ----------
        system : EnergySystem or VectorField
            The system in training; its `.grad` are those of this batch.
        epoch, batch : int
            Number of the epoch and of the batch within it, from 0.
        step : Step
            What the estimator found: loss, outputs, equilibria with their residuals.
        """

    def on_epoch(self, system: PhysicalSystem, epoch: int, figures: dict[str, Any]) -> bool | None:
        """Called after each epoch, once it is in the run file.

        Parameters
        ----------
        system : EnergySystem or VectorField
        epoch : int
            Number of the epoch, from 0.
        figures : dict
            Name to value, as `physics_ep.runs.metrics.METRICS` tells them.

        Returns
        -------
        bool or None
            True ends the training here, as if this had been the last epoch.
        """
        return None

    def on_end(self, result: Any) -> None:
        """Called with the `TrainingResult` of a training that came to its end."""


def checked_callbacks(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    """The callbacks as a tuple.

    Raises
    ------
    InputError
        If one of them is none.
    """
    if isinstance(callbacks, Callback):
        raise argument_error("callbacks", "be a list of Callback", "one alone: put it in brackets")
    found = tuple(callbacks)
    for callback in found:
        if not isinstance(callback, Callback):
            was = "a class: call it" if isinstance(callback, type) else type(callback).__name__
            raise argument_error("callbacks", "hold instances of physics_ep.Callback", was)
    return found

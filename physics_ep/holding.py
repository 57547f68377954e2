"""Systems that hold what they draw at random over the phases of a step, and that may have one energy a batch."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


class HoldsNoise:
    """What a system must do whose evaluations draw random numbers, or normalise over the batch, within a step.

    Other systems are refused where they do so (`physics_ep.stillness`).
    """

    def holding(self) -> AbstractContextManager[None]:
        """Within, evaluations draw what was drawn before."""
        raise NotImplementedError

    def renew(self) -> None:
        """Let the next free phase draw anew: called when a step begins, or a free relaxation."""
        raise NotImplementedError

    def update_statistics(self, x: torch.Tensor) -> None:
        """Let running statistics take in one batch: called once a step, when it is over."""
        raise NotImplementedError

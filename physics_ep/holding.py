"""Systems that hold what they draw at random over the phases of a step, and that may have one energy a batch."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


class HoldsNoise:
    """What a system must do whose evaluations draw random numbers, or normalise over the batch, within a step.

    Other systems are refused where they do so (`physics_ep.stillness`).
    """

    def holding(self) -> AbstractContextManager[None]:
        """Within this context, evaluations use the random numbers drawn before, and draw none."""
        raise NotImplementedError

    def renew(self) -> None:
        """Let the next free phase draw new random numbers; called when a step or a free relaxation begins."""
        raise NotImplementedError

    def update_statistics(self, x: torch.Tensor) -> None:
        """Let the running statistics of normalising layers take in one batch; called once, at the end of a step."""
        raise NotImplementedError

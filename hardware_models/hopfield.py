"""Continuous Hopfield networks, layered, trained by equilibrium propagation."""

from __future__ import annotations

from .layered import Layered


class HopfieldNetwork(Layered):
    """Layered continuous Hopfield network (Hopfield 1984; Scellier and Bengio 2017).

    States are the amplifiers' outputs, dimensionless. With the hard sigmoid, Psi(s) = s^2/2 on [0, 1] and the
    energy is 1/2 |s|^2 - sum W s s - b s; with tanh and logistic units Psi is the integral of the inverse
    response, the energy of the 1984 circuit. Output units are linear by default, so that both costs apply;
    `output_activation='hard_sigmoid'` clips them to [0, 1] (squared error only).

    Parameters
    ----------
    sizes : sequence of int
        [inputs, hidden ..., outputs].
    activation : {'hard_sigmoid', 'tanh', 'logistic', 'linear'}
    output_activation : {'linear', 'hard_sigmoid'}
    gain : float
        Couplings start uniform in +-gain / sqrt(n_in).
    seed : int
        Of the couplings.

    Raises
    ------
    InputError
        If an argument is not as above.

    Examples
    --------
    >>> import torch
    >>> from physics_ep import relax
    >>> system = HopfieldNetwork([4, 8, 2], activation="tanh")
    >>> free = relax(system, torch.zeros(1, 4)).require()
    >>> bool(free.converged.all())
    True
    """

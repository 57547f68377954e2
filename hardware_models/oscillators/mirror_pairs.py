"""Bilinear couplings in sin a, made of oscillators at a and at -a.

Of cos(a - b) - cos(a + b) = 2 sin a sin b: an oscillator at a and its mirror image at -a, coupled to the pair of b
by four edges, J/4 to the oscillator on the same side and -J/4 to that on the other, have the energy -J sin a sin b.
A quadrature field h/2 on the oscillator and -h/2 on its image adds -h sin a, injection K/2 on both -(K/2) cos 2a.

With K = r^2 / 2 the pair is a clip: with v = m + r sin a, v^2/2 - p v is -(r^2/4) cos 2a - r (p - m) sin a but for
a constant, so that v settles at p clipped to [m - r, m + r]. At the bounds cos a = 0, and with it the force: a pair
that starts there exactly never moves.

Nothing but its own curvature keeps a pair symmetric. Where pair i is turned by e_i as a whole, the energy bends by
diag(s_i (J s + h)_i + 2 K cos 2 a_i) - s_i J_ij s_j, s = sin a: this must be positive definite, and is not
everywhere unless the injection outweighs the couplings.
"""

from __future__ import annotations

from typing import Any

import torch

from .graph import OscillatorGraph, checked_edges, values_of


def mirror_pairs(
    n: int, edges: Any, weights: Any = 1.0, fields: Any = 0.0, second_harmonic: float = 0.0, **options: Any
) -> OscillatorGraph:
    """Graph of 2 n oscillators with the energy of n mirror pairs.

    On a_{n + i} = -a_i it is -sum_{edges} J_ij sin a_i sin a_j - sum_i h_i sin a_i - (K/2) sum_i cos 2 a_i, and the
    force on a_i, less that on its image, is minus the slope of this energy.

    Parameters
    ----------
    n : int
    edges, weights : array of int (m, 2), array (m,) or float
        Pairs and J, in coupling units.
    fields : array (n,) or float
        h.
    second_harmonic : float
        K.
    **options
        Options of `OscillatorGraph`. Default outputs: the sines of all 2 n, of which the images' are the negatives.

    Returns
    -------
    OscillatorGraph
    """
    pairs = checked_edges(edges, n)
    quarter = values_of("weights", weights, (len(pairs),)) / 4
    half = values_of("fields", fields, (n,)) / 2
    across = torch.tensor([0, n])
    return OscillatorGraph(
        2 * n,
        torch.cat([pairs, pairs + n, pairs + across, pairs + across.flip(0)]),
        torch.cat([quarter, quarter, -quarter, -quarter]),
        field=torch.stack([torch.zeros(2 * n, dtype=half.dtype), torch.cat([half, -half])]),
        second_harmonic=second_harmonic / 2,
        **{"readout": "sin", **options},
    )

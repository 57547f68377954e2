"""The level-1 law of MOS transistors, written once in plain arithmetic on a namespace argument.

Shichman and Hodges 1968, IEEE Journal of Solid-State Circuits 3, 285 ("Modeling and simulation of insulated-gate
field-effect transistor switching circuits"), with the body effect and the channel-length modulation that SPICE's
level 1 has (Vladimirescu and Liu 1980, Berkeley memorandum ERL-M80/7; ngspice 39, mos1load.c). For an n-channel
transistor with v_ds >= 0, beta = KP W / L and u = v_gs - v_th:

    v_th = VTO + GAMMA (sqrt(PHI - v_bs) - sqrt(PHI))
    u <= 0:           i = 0                                                  (cutoff)
    v_ds < u:         i = beta v_ds (u - v_ds / 2) (1 + LAMBDA v_ds)         (triode)
    v_ds >= u:        i = beta u^2 / 2 (1 + LAMBDA v_ds)                     (saturation)

For v_bs > 0 the square root goes on as its tangent, down to 0. With v_ds < 0 source and drain change places; a
p-channel transistor has all voltages, its threshold and its current reversed. The current and its slopes are
continuous, everywhere but in LAMBDA's term where a transistor begins to conduct (both are 0 there).

No current flows into gate and bulk: the bulk's diodes are parts of their own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

X = Any
"""A number or an array of the namespace."""


class TransistorValues(NamedTuple):
    """What a transistor's law takes; numbers or arrays.

    Attributes
    ----------
    transconductance : amperes per volt^2
        KP.
    threshold : volts
        VTO, negative for a p-channel transistor that conducts when its gate is drawn below its source.
    modulation : 1 / volt
        LAMBDA.
    width, length : metres
        W, and L less the lateral diffusion.
    body : volts^(1/2)
        GAMMA.
    potential : volts
        PHI.
    """

    transconductance: X
    threshold: X
    modulation: X
    width: X
    length: X
    body: X
    potential: X


class TransistorCurrent(NamedTuple):
    """Current from drain to source, amperes, and its slopes by v_gs, v_ds and v_bs, siemens."""

    current: X
    by_gate: X
    by_drain: X
    by_bulk: X


def transistor_current(xp: Any, sign: X, gate: X, drain: X, bulk: X, values: TransistorValues) -> TransistorCurrent:
    """Current of transistors and its slopes.

    Parameters
    ----------
    xp : namespace
        numpy or torch.
    sign : array
        +1 for n-channel transistors, -1 for p-channel ones.
    gate, drain, bulk : array
        v_gs, v_ds and v_bs, volts.
    values : TransistorValues
    """
    kp, threshold, modulation, width, length, body, potential = values
    forward = sign * drain >= 0
    v_ds = abs(drain)
    v_gs = sign * xp.where(forward, gate, gate - drain)
    v_bs = sign * xp.where(forward, bulk, bulk - drain)
    zero = 0.0 * v_ds
    rest = potential**0.5 + zero
    tangent = xp.maximum(rest - 0.5 * v_bs / rest, zero)
    depletion = xp.where(v_bs > 0, tangent, (potential - xp.minimum(v_bs, zero)) ** 0.5)
    over = v_gs - sign * threshold - body * (depletion - potential**0.5)
    on = over > 0
    u = xp.maximum(over, zero)
    reach = xp.minimum(v_ds, u)  # v_ds in triode, u in saturation
    beta = kp * width / length
    longer = 1 + modulation * v_ds
    bare = beta * reach * (u - 0.5 * reach)
    by_gate = beta * reach * longer
    by_drain = beta * (u - reach) * longer + modulation * bare
    # d v_th / d v_bs is -GAMMA / 2 over the root; the tangent has the root's slope at 0, and ends where it is 0.
    floor = xp.where(depletion > 0, depletion, 1.0 + zero)
    steep = xp.where(v_bs > 0, 0.5 * body / rest, 0.5 * body / floor)
    by_bulk = by_gate * xp.where(depletion > 0, steep, zero)
    by_drain = xp.where(on, by_drain, zero)
    current = sign * xp.where(forward, bare * longer, -bare * longer)
    # With source and drain exchanged the controls are v_gd, -v_ds and v_bd.
    back = by_gate + by_drain + by_bulk
    return TransistorCurrent(
        current,
        xp.where(forward, by_gate, -by_gate),
        xp.where(forward, by_drain, back),
        xp.where(forward, by_bulk, -by_bulk),
    )

"""Compiled relaxation of one layer of hidden units between a clamped input and a few outputs, example by example.

A hidden layer of a thousand units is 4 KB in float32, and the weights to ten outputs 40 KB: an example relaxes to
the end within the nearest caches, where products of whole batches pass over megabytes, once for each operation of a
sweep. Each example makes its own sweeps, and stops by itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..laws.compiled import Array, prange, summing, summing_inner

GROUP = 4
"""Outputs whose weights pass over the hidden units at once: fewer read these more often, more are no faster."""
BLOCK = 256
"""Units a block of `paired`: sums over the batch stay in the nearest cache."""
MOST_PENALTY = 64.0
"""Most plain steps after a mixed one that led astray (`physics_ep.relaxation.solvers.Anderson`)."""


class HiddenRows(NamedTuple):
    """Units that clip: s = clip(r p, low, high) under the drive p. All arrays (N,).

    Attributes
    ----------
    gain : array
        r.
    low, high : array
        Bounds, which may be infinite.
    """

    gain: Array
    low: Array
    high: Array


class OutputRows(NamedTuple):
    """Outputs that a drive W s from below moves to `alone + factor W s`; rows R are copies of the batch, B each.

    Attributes
    ----------
    first : array (R, n)
        Where they start.
    alone, factor : array (R, n)
    unit : array (n,)
        Residual for a unit of distance from an output to where it should be.
    """

    first: Array
    alone: Array
    factor: Array
    unit: Array


class RowRule(NamedTuple):
    """How to relax.

    Attributes
    ----------
    back : float
        What an output adds to the drive of the hidden units, over W^T times itself.
    tolerance : float
        Residual at which an example stops.
    most : int
        Most sweeps.
    depth : int
        Depth of Anderson's mixing; 0: plain sweeps.
    eps, tiny : float
        Rounding and smallest normal number of the arrays' dtype.
    """

    back: float
    tolerance: float
    most: int
    depth: int
    eps: float
    tiny: float


@summing_inner
def copied(d: Array, source: Array) -> None:
    """Copy source (N,) to d; an assignment of arrays takes four times as long."""
    for i in range(len(d)):
        d[i] = source[i]


@summing_inner
def add_back(d: Array, w: Array, u: Array, back: float) -> None:
    """Add back * W^T u to the drives d (N,)."""
    n, size = w.shape
    whole = n - n % GROUP
    real = d.dtype.type
    for j in range(0, whole, GROUP):
        w0, w1, w2, w3 = w[j], w[j + 1], w[j + 2], w[j + 3]
        a0, a1, a2, a3 = real(back * u[j]), real(back * u[j + 1]), real(back * u[j + 2]), real(back * u[j + 3])
        for i in range(size):
            d[i] += a0 * w0[i] + a1 * w1[i] + a2 * w2[i] + a3 * w3[i]
    for j in range(whole, n - 1, 2):
        w0, w1 = w[j], w[j + 1]
        a0, a1 = real(back * u[j]), real(back * u[j + 1])
        for i in range(size):
            d[i] += a0 * w0[i] + a1 * w1[i]
    if n % 2:
        w0, a0 = w[n - 1], real(back * u[n - 1])
        for i in range(size):
            d[i] += a0 * w0[i]


@summing_inner
def forward(d: Array, w: Array, out: Array) -> None:
    """W d of states d (N,), into out (n,)."""
    n, size = w.shape
    whole = n - n % GROUP
    zero = d.dtype.type(0)
    for j in range(0, whole, GROUP):
        w0, w1, w2, w3 = w[j], w[j + 1], w[j + 2], w[j + 3]
        t0, t1, t2, t3 = zero, zero, zero, zero
        for i in range(size):
            s = d[i]
            t0 += w0[i] * s
            t1 += w1[i] * s
            t2 += w2[i] * s
            t3 += w3[i] * s
        out[j], out[j + 1], out[j + 2], out[j + 3] = t0, t1, t2, t3
    for j in range(whole, n - 1, 2):
        w0, w1 = w[j], w[j + 1]
        t0, t1 = zero, zero
        for i in range(size):
            t0 += w0[i] * d[i]
            t1 += w1[i] * d[i]
        out[j], out[j + 1] = t0, t1
    if n % 2:
        w0, t0 = w[n - 1], zero
        for i in range(size):
            t0 += w0[i] * d[i]
        out[n - 1] = t0


@summing_inner
def respond(d: Array, hidden: HiddenRows) -> None:
    """Drives d (N,) become states."""
    gain, low, high = hidden.gain, hidden.low, hidden.high
    for i in range(len(d)):
        s = d[i] * gain[i]
        s = low[i] if s < low[i] else s
        d[i] = high[i] if s > high[i] else s


@summing_inner
def displace(d: Array, hidden: HiddenRows, settled: Array, beyond: Array) -> None:
    """Changes d (N,) of the drives become displacements from `settled` states, whose drives lay `beyond` them."""
    gain, low, high = hidden.gain, hidden.low, hidden.high
    for i in range(len(d)):
        least, most = low[i] - settled[i], high[i] - settled[i]
        s = d[i] * gain[i] + beyond[i]
        s = least if s < least else s
        d[i] = most if s > most else s


@summing_inner
def mixed(df: Array, dg: Array, f: Array, g: Array, rule: RowRule, out: Array) -> bool:
    """g - gamma dg, gamma the least squares of f by the rows of df, into out (n,); whether it could be had.

    Normal equations by Cholesky, as in `physics_ep.relaxation.solvers.least_squares`.
    """
    m, n = df.shape
    a, b = np.empty((m, m), f.dtype), np.empty(m, f.dtype)
    for p in range(m):
        for q in range(p + 1):
            t = f.dtype.type(0)
            for i in range(n):
                t += df[p, i] * df[q, i]
            a[p, q] = t
        a[p, p] = a[p, p] * (1 + 10 * rule.eps) + rule.tiny
        t = f.dtype.type(0)
        for i in range(n):
            t += df[p, i] * f[i]
        b[p] = t
    for p in range(m):
        for q in range(p):
            t = a[p, q]
            for k in range(q):
                t -= a[p, k] * a[q, k]
            a[p, q] = t / a[q, q]
        t = a[p, p]
        for k in range(p):
            t -= a[p, k] * a[p, k]
        if not t > 0:
            return False
        a[p, p] = np.sqrt(t)
        t = b[p]
        for k in range(p):
            t -= a[p, k] * b[k]
        b[p] = t / a[p, p]
    for p in range(m - 1, -1, -1):
        t = b[p]
        for k in range(p + 1, m):
            t -= a[k, p] * b[k]
        b[p] = t / a[p, p]
    for i in range(n):
        t = g[i]
        for p in range(m):
            t -= b[p] * dg[p, i]
        out[i] = t
    return True


@summing_inner
def relax_example(
    example: int,
    clamped: Array,
    w: Array,
    hidden: HiddenRows,
    origin: Array,
    outputs: OutputRows,
    rule: RowRule,
    states: Array,
    ends: Array,
    following: Array,
    residuals: Array,
    made: Array,
) -> None:
    """Relax all copies of one example; the arguments are those of `relaxed`, and what it returns."""
    batch, size = clamped.shape
    rows, n = outputs.first.shape
    copies, displaced = rows // batch, len(origin) > 0
    settled, beyond = np.empty(size, clamped.dtype), np.empty(size, clamped.dtype)
    if displaced:
        copied(beyond, clamped[example])
        add_back(beyond, w, origin[example], rule.back)
        for i in range(size):
            v = beyond[i] * hidden.gain[i]
            s = hidden.low[i] if v < hidden.low[i] else v
            s = hidden.high[i] if s > hidden.high[i] else s
            settled[i] = s
            beyond[i] = v - s
    f, before, last = np.empty(n, clamped.dtype), np.empty(n, clamped.dtype), np.empty(n, clamped.dtype)
    df, dg = np.zeros((rule.depth, n), clamped.dtype), np.zeros((rule.depth, n), clamped.dtype)
    mix = np.empty(n, clamped.dtype)
    for copy in range(copies):
        row = copy * batch + example
        d, u, g = states[row], ends[row], following[row]
        df[:] = 0
        dg[:] = 0
        worst, plain, penalty = np.inf, 0.0, 1.0
        count = 0
        while True:
            if displaced:
                for i in range(size):
                    d[i] = 0
                add_back(d, w, u, rule.back)
                displace(d, hidden, settled, beyond)
            else:
                copied(d, clamped[example])
                add_back(d, w, u, rule.back)
                respond(d, hidden)
            forward(d, w, g)
            earlier, worst, sound = worst, 0.0, True
            for j in range(n):
                g[j] = outputs.alone[row, j] + g[j] * outputs.factor[row, j]
                f[j] = g[j] - u[j]
                gap = abs(f[j] * outputs.unit[j])
                sound = sound and np.isfinite(gap)
                worst = max(worst, gap)
            count += 1
            if not sound:
                worst = np.nan
            if not sound or worst <= rule.tolerance or count >= rule.most:
                break
            use_mix = False
            if count > 1 and rule.depth > 0:
                slot = (count - 2) % rule.depth
                for j in range(n):
                    df[slot, j] = f[j] - before[j]
                    dg[slot, j] = g[j] - last[j]
                used = min(count - 1, rule.depth)
                solved = mixed(df[:used], dg[:used], f, g, rule, mix)
                use_mix = solved and worst <= earlier and plain == 0
                if not use_mix:
                    if plain == 0:
                        penalty = min(2 * penalty, MOST_PENALTY)
                        plain = penalty
                    else:
                        plain = max(plain - 1, 0.0)
                    df[:] = 0
                    dg[:] = 0
            for j in range(n):
                before[j] = f[j]
                last[j] = g[j]
                u[j] = mix[j] if use_mix else g[j]
        residuals[row] = worst
        made[row] = count


@summing
def relaxed(
    clamped: Array, w: Array, hidden: HiddenRows, origin: Array, outputs: OutputRows, rule: RowRule
) -> tuple[Array, Array, Array, Array, Array]:
    """Relax every row.

    Parameters
    ----------
    clamped : array (B, N)
        What the input adds to the drives of the hidden units.
    w : array (n, N)
        Weights from the hidden units to the outputs.
    hidden : HiddenRows
    origin : array (B, n), or (0, n)
        Outputs of the free states from which displacements are counted; without rows, states are relaxed.
    outputs : OutputRows
    rule : RowRule

    Returns
    -------
    (states of the hidden units (R, N), of the outputs (R, n), where the next sweep takes these (R, n), residuals
    (R,), sweeps (R,))
    """
    batch, size = clamped.shape
    rows = len(outputs.first)
    states, ends = np.empty((rows, size), clamped.dtype), outputs.first.copy()
    following, residuals = np.empty_like(ends), np.empty(rows, clamped.dtype)
    made = np.empty(rows, np.int64)
    for example in prange(batch):
        relax_example(example, clamped, w, hidden, origin, outputs, rule, states, ends, following, residuals, made)
    return states, ends, following, residuals, made


@summing
def paired(free: Array, plus: Array, minus: Array, weight: Array) -> tuple[Array, Array, Array, Array]:
    """What a contrast takes of two displacements from free states, all (B, N), in one pass.

    Parameters
    ----------
    free, plus, minus : array (B, N)
    weight : array (B,)
        Weight of each example.

    Returns
    -------
    (weight times the difference e of the two states, (B, N), their mean m (B, N), sums over the batch of e m and of
    e, both (N,) and in float64)
    """
    batch, size = free.shape
    e, m = np.empty_like(free), np.empty_like(free)
    products, total = np.zeros(size, np.float64), np.zeros(size, np.float64)
    half = free.dtype.type(0.5)
    for block in prange((size + BLOCK - 1) // BLOCK):
        first, last = block * BLOCK, min(size, (block + 1) * BLOCK)
        own, alone = products[first:last], total[first:last]
        for b in range(batch):
            f, p, q = free[b, first:last], plus[b, first:last], minus[b, first:last]
            moved, mean, w = e[b, first:last], m[b, first:last], weight[b]
            for i in range(len(f)):
                d = w * (p[i] - q[i])
                s = f[i] + half * (p[i] + q[i])
                moved[i] = d
                mean[i] = s
                own[i] += d * s
                alone[i] += d
    return e, m, products, total

"""Compiled passes over blocks of a course: a file of its own, since an edit compiles anew what imports it."""

from __future__ import annotations

from ..laws.compiled import Array, sequential


@sequential
def compare(
    goal: Array, at: Array, miss: Array, goal_bits: Array, at_bits: Array, miss_bits: Array, sign: int, sizes: Array
) -> None:
    """Write goal - at, and the largest size in each row of the goal, of `at` and of the difference.

    Sizes are compared as the integers that their bits are, which have the order of numbers from 0 on, infinity and
    NaN beyond all others: a NaN is found, and many entries are compared at once.

    Parameters
    ----------
    goal, at, miss : ndarray (B, n)
        `miss` receives the difference.
    goal_bits, at_bits, miss_bits : ndarray (B, n)
        The same memory, as integers.
    sign : int
        All bits but that of the sign.
    sizes : ndarray (3, B)
        Receives the sizes, as integers.
    """
    bits = sizes.dtype.type  # integers of different widths would be compared as wide ones
    for i in range(goal.shape[0]):
        for j in range(goal.shape[1]):
            miss[i, j] = goal[i, j] - at[i, j]
        first, second, third = bits(0), bits(0), bits(0)
        for j in range(goal.shape[1]):
            first = max(first, bits(goal_bits[i, j] & sign))
            second = max(second, bits(at_bits[i, j] & sign))
            third = max(third, bits(miss_bits[i, j] & sign))
        sizes[0, i] = first
        sizes[1, i] = second
        sizes[2, i] = third


@sequential
def rectify(
    dq: Array,
    gap: Array,
    low_h: Array,
    high_h: Array,
    low_u: Array,
    high_u: Array,
    dp: Array,
    moved: Array,
    error: Array,
) -> None:
    """Write dp = dq + gap, how far ReLUs h move for it, and how much further than those of u for dq.

    Parameters
    ----------
    dq, gap, dp, moved, error : ndarray (rows, n)
        Of stacked batches; the last three receive what is found.
    low_h, high_h, low_u, high_u : ndarray (B, n)
        min(p, 0) and -ReLU(p) of one batch, of p = h's and u's drive, as `rectified` takes them.
    """
    for i in range(dq.shape[0]):
        b = i % low_h.shape[0]
        for j in range(dq.shape[1]):
            dp[i, j] = dq[i, j] + gap[i, j]
        for j in range(dq.shape[1]):
            above = dp[i, j] + low_h[b, j]
            moved[i, j] = high_h[b, j] if above < high_h[b, j] else above
        for j in range(dq.shape[1]):
            below = dq[i, j] + low_u[b, j]
            error[i, j] = moved[i, j] - (high_u[b, j] if below < high_u[b, j] else below)

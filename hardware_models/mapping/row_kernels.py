"""Compiled passes over blocks of a course: a file of its own, since an edit compiles anew what imports it."""

from __future__ import annotations

from typing import Any

from ..laws.compiled import Array, inner, sequential


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


@sequential
def measure(goal_bits: Array, at_bits: Array, goal: Array, at: Array, miss: Array, sign: int, sizes: Array) -> None:
    """Write the largest size in each row of `goal`, of `at` and of goal - at, as `compare` does, and no difference.

    Parameters
    ----------
    goal_bits, at_bits : ndarray (B, n)
        Both blocks as the integers that their bits are.
    goal, at : ndarray (B, n)
    miss : ndarray (n,)
        Room for one row of differences.
    sign : int
        All bits but that of the sign.
    sizes : ndarray (3, B)
        Receives the sizes, as integers.
    """
    bits = sizes.dtype.type
    miss_bits = miss.view(sizes.dtype)
    for i in range(goal.shape[0]):
        for j in range(goal.shape[1]):
            miss[j] = goal[i, j] - at[i, j]
        first, second, third = bits(0), bits(0), bits(0)
        for j in range(goal.shape[1]):
            first = max(first, bits(goal_bits[i, j] & sign))
            second = max(second, bits(at_bits[i, j] & sign))
            third = max(third, bits(miss_bits[j] & sign))
        sizes[0, i] = first
        sizes[1, i] = second
        sizes[2, i] = third


@sequential
def not_opposite(rows: Array, found: Array) -> None:
    """Write in how many places a row of the first half of `rows` is not the negative of its partner in the second.

    Parameters
    ----------
    rows : ndarray (2 B, n)
    found : ndarray (B,)
        Receives the counts, integers as wide as the numbers.
    """
    count = found.shape[0]
    bits = found.dtype.type
    for i in range(count):
        places = bits(0)
        for j in range(rows.shape[1]):
            places = bits(places + bits(rows[i, j] + rows[count + i, j] != 0))
        found[i] = places


@inner
def clip_move(a: Any, d: Any, low: Any, high: Any) -> Any:
    """clip(a + d, low, high) - clip(a, low, high) of numbers, without cancellation."""
    s = low if a < low else a
    s = high if s > high else s
    m = d + (a - s)
    below, above = low - s, high - s
    m = below if m < below else m
    return above if m > above else m


@sequential
def clip(change: Array, at: Array, low: Any, high: Any, moved: Array) -> None:
    """Write how far clips move: clip(a + d, low, high) - clip(a, low, high), without cancellation.

    Parameters
    ----------
    change, moved : ndarray (rows, n)
        Changes d of stacked batches, and what receives the result.
    at : ndarray (B, n)
        a of one batch.
    low, high : number
        Bounds in the dtype of the blocks; infinity is none.
    """
    for i in range(change.shape[0]):
        b = i % at.shape[0]
        for j in range(change.shape[1]):
            moved[i, j] = clip_move(at[b, j], change[i, j], low, high)


@sequential
def clip_on(start: Array, change: Array, at: Array, low: Any, high: Any, moved: Array) -> None:
    """`clip` from a + `start`, (rows, n), in place of a."""
    for i in range(change.shape[0]):
        b = i % at.shape[0]
        for j in range(change.shape[1]):
            moved[i, j] = clip_move(start[i, j] + at[b, j], change[i, j], low, high)

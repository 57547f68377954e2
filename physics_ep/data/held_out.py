"""Examples held out of the training set, to choose recipes and epochs by, without a look at the test set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import argument_error

if TYPE_CHECKING:
    from ..config import DataSection

STREAM = 7
"""Keeps this draw apart from that of the test part of a table, which has the same seed."""
LIMITED = 8
"""Keeps the draw of a limited number of examples apart from both."""


def parted(labels: np.ndarray, section: DataSection) -> tuple[np.ndarray, np.ndarray]:
    """Split the training set into rows to train on and rows held out; none are held out unless the section asks
    for it.

    Whatever is fitted to examples (scalings, means of colours) is fitted to the first of the two alone.

    Parameters
    ----------
    labels : ndarray (N,) or (N, n)
        Targets of the examples of the training set; those that are no integers are drawn from as of one class.
    section : DataSection
        Its `validation` and `seed` count.

    Returns
    -------
    kept, held : ndarray of int
        Numbers of the examples of the two parts, in rising order.

    Raises
    ------
    InputError
        If no example would be left to train on, or none held out.
    """
    if section.validation is None:
        return np.arange(len(labels)), np.arange(0)
    groups = labels if labels.dtype.kind in "iu" else np.zeros(len(labels), np.int64)
    return held_out(groups, section.validation, section.seed)


def limited(labels: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    """Rows of the examples that a limited number leaves.

    The first ones, unless the examples lie class by class, as those of folders and of sorted tables do: the first
    ones would then all be of one class, and as many are drawn with the shares of all classes instead.

    Parameters
    ----------
    labels : ndarray (N,) or (N, n)
        Targets; only integers are classes.
    count : int or None
        Number of examples, below N to limit them.
    seed : int
        Seed of the draw.

    Returns
    -------
    ndarray of int
        In rising order.
    """
    every = np.arange(len(labels))
    if count is None or count >= len(labels):
        return every
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        return every[:count]
    classes, changes = len(np.unique(labels)), np.count_nonzero(np.diff(labels))
    if classes == 1 or changes != classes - 1:
        return every[:count]
    return drawn(labels, count, np.random.default_rng([seed, LIMITED]))[1]


def held_out(labels: np.ndarray, validation: float | int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to choose by: a seeded draw with the shares of all classes.

    Each class gives its part of the examples held out, as `drawn` says, so that their number is exactly the one
    asked for.

    Parameters
    ----------
    labels : ndarray (N,) of int
        Classes of the examples of the training set.
    validation : float or int
        Share of the examples to hold out, in (0, 1), or their number.
    seed : int
        Seed of the draw.

    Returns
    -------
    kept, held : ndarray of int
        Numbers of the examples of the two parts, in rising order. They have none in common.

    Raises
    ------
    InputError
        If no example would be left to train on, or none held out.
    """
    count = len(labels)
    wanted = validation if isinstance(validation, int) else round(validation * count)
    if not 1 <= wanted < count:
        must = f"hold out at least one of the {count} training examples, and leave one"
        raise argument_error("data.validation", must, f"{validation}, which is {wanted} of them")
    return drawn(labels, wanted, np.random.default_rng([seed, STREAM]))


def drawn(labels: np.ndarray, wanted: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows that stay and rows that are drawn, with the shares of all classes.

    Each class gives its part, rounded down or up by the largest remainders. No class gives its last example while
    another has one to spare, so that as few as can be are missing among the rows that stay.

    Parameters
    ----------
    labels : ndarray (N,) of int
        Classes.
    wanted : int
        Number of rows to draw, in [1, N).
    generator : numpy.random.Generator

    Returns
    -------
    kept, held : ndarray of int
        Numbers of the rows of the two parts, in rising order.
    """
    count = len(labels)
    classes, sizes = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(sizes * wanted, count)
    last = quotas + 1 >= sizes
    quotas[np.lexsort((-remainders, last))[: wanted - quotas.sum()]] += 1
    order = generator.permutation(count)
    rows = [order[labels[order] == value][:quota] for value, quota in zip(classes, quotas, strict=True)]
    held = np.sort(np.concatenate(rows))
    return np.setdiff1d(np.arange(count), held), held

"""Matrices drawn like a given Gram matrix, and how like it they are. NumPy alone, float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def drawn(target: np.ndarray, order: np.ndarray, rounds: int) -> np.ndarray:
    """A positive semi-definite matrix with the target's values, in about another matrix' order.

    From ``order`` on, turn about: give the entries the target's values by their ranks (`remapped`), and
    take the nearest positive semi-definite matrix. The last is the projection, so that what comes out is
    semi-definite exactly and has the target's values nearly.

    Args:
        target: ``[N, N]``, a Gram matrix.
        order: ``[N, N]``, symmetric; only the ranks of its entries count.
        rounds: of both. One leaves a Kolmogorov-Smirnov distance of some 0.2 from `shuffled`, sixty
            some 0.02, two hundred some 0.015.

    Returns:
        float64 ``[N, N]``.

    Reference: alternating projections, von Neumann 1950; for matrices Higham 2002, Computing the nearest
    correlation matrix. The values of a given histogram are not a convex set: it need not converge.
    """
    matrix = np.asarray(order, np.float64)
    for _ in range(rounds):
        matrix = semi_definite(remapped(matrix, target))
    return matrix


def shuffled(target: np.ndarray, seed: int) -> np.ndarray:
    """The target's entries anywhere, float64 ``[N, N]``; symmetric, its diagonal on the diagonal."""
    generator, size = np.random.default_rng(seed), len(target)
    upper = np.triu_indices(size, 1)
    matrix = np.diag(generator.permutation(np.diag(target).astype(np.float64)))
    matrix[upper] = generator.permutation(target[upper])
    return matrix + np.triu(matrix, 1).T


def remapped(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The target's values in the order of a symmetric matrix' own, on the diagonal and off it apart."""
    upper = np.triu_indices(len(matrix), 1)
    result = np.zeros(matrix.shape)
    result[upper] = _ranked(matrix[upper], target[upper])
    return result + result.T + np.diag(_ranked(np.diag(matrix), np.diag(target)))


def semi_definite(matrix: np.ndarray) -> np.ndarray:
    """The nearest positive semi-definite matrix of a symmetric one: its negative eigenvalues set to 0."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 0)) @ vectors.T


class Likeness(NamedTuple):
    """How a matrix compares with a Gram matrix that it was drawn like.

    Attributes:
        sparsity, wanted: share of entries below a part of the target's mean entry, of both.
        distribution: Kolmogorov-Smirnov distance of all entries.
        smallest: eigenvalue, as a part of the largest.
        spectrum: ``|λ - λ*| / |λ*|`` of the eigenvalues in order; 0 for the target's channels permuted.
        matched: ``|G - A| / |A|`` with the channels of both in the order of their diagonals; also 0 then,
            since a permutation must take equal diagonals to each other.
    """

    sparsity: float
    wanted: float
    distribution: float
    smallest: float
    spectrum: float
    matched: float


def likeness(matrix: np.ndarray, target: np.ndarray, threshold: float) -> Likeness:
    """Compare a matrix with its target.

    Args:
        matrix, target: ``[N, N]``, symmetric.
        threshold: a part of the target's mean entry, below which one counts as empty.
    """
    matrix, target = np.asarray(matrix, np.float64), np.asarray(target, np.float64)
    values, goal = np.linalg.eigvalsh(matrix), np.linalg.eigvalsh(target)
    empty = threshold * target.mean()
    return Likeness(
        float((matrix < empty).mean()),
        float((target < empty).mean()),
        ks_distance(matrix, target),
        float(values[0] / values[-1]),
        float(np.linalg.norm(values - goal) / np.linalg.norm(goal)),
        float(np.linalg.norm(_by_diagonal(matrix) - _by_diagonal(target)) / np.linalg.norm(target)),
    )


def ks_distance(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of two samples' cumulative distributions, 0 to 1 (Kolmogorov, Smirnov)."""
    first, second = np.sort(one, None), np.sort(other, None)
    places = np.concatenate([first, second])
    below = [np.searchsorted(sample, places, "right") / len(sample) for sample in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def _ranked(order: np.ndarray, values: np.ndarray) -> np.ndarray:
    result = np.empty(len(order))
    result[np.argsort(order, kind="stable")] = np.sort(values)
    return result


def _by_diagonal(matrix: np.ndarray) -> np.ndarray:
    order = np.argsort(np.diag(matrix), kind="stable")
    return matrix[np.ix_(order, order)]

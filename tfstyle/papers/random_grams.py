"""Random matrices with the values of a given Gram matrix, and their comparison with it, in NumPy float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def sample_gram(target: np.ndarray, ranking: np.ndarray, *, rounds: int) -> np.ndarray:
    """Return a positive semi-definite matrix with nearly the target's values, in the order of another matrix.

    Starting from ``ranking``, the function alternates between two projections. The first assigns the target's
    values to the entries by their ranks (`match_values`). The second takes the nearest positive semi-definite
    matrix (`nearest_semidefinite`). The second is the last, so that the result is positive semi-definite up
    to rounding, and its values are near the target's.

    Args:
        target: a Gram matrix, ``[N, N]``.
        ranking: symmetric matrix, ``[N, N]``; only the ranks of its entries matter.
        rounds: number of alternations. From a ranking by `shuffle_entries`, the Kolmogorov-Smirnov distance
            of the values is about 0.2 after one round, 0.02 after 60 and 0.015 after 200.

    Returns:
        float64 ``[N, N]``.

    Reference: von Neumann 1950 for alternating projections; Higham 2002, Computing the nearest correlation
    matrix, for matrices. The matrices with given values are not a convex set, so that convergence is not
    guaranteed.

    Example:
        >>> import numpy as np
        >>> from tfstyle.papers.random_grams import sample_gram, shuffle_entries
        >>> features = np.maximum(np.random.default_rng(0).normal(size=(200, 16)), 0)
        >>> target = features.T @ features / 200
        >>> gram = sample_gram(target, shuffle_entries(target, seed=1), rounds=20)
        >>> gram.shape, bool(np.linalg.eigvalsh(gram).min() > -1e-9)
        ((16, 16), True)
    """
    matrix = np.asarray(ranking, np.float64)
    for _ in range(rounds):
        matrix = nearest_semidefinite(match_values(matrix, target))
    return matrix


def shuffle_entries(target: np.ndarray, seed: int) -> np.ndarray:
    """Return a symmetric matrix with the target's entries in random order, float64 ``[N, N]``.

    The entries of the diagonal and those off the diagonal are permuted separately.
    """
    generator, size = np.random.default_rng(seed), len(target)
    upper = np.triu_indices(size, 1)
    matrix = np.diag(generator.permutation(np.diag(target).astype(np.float64)))
    matrix[upper] = generator.permutation(target[upper])
    return matrix + np.triu(matrix, 1).T


def match_values(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return a symmetric matrix with the target's values, in the order of the given symmetric matrix.

    The largest entry gets the largest value, and so on, on the diagonal and off the diagonal separately.
    """
    upper = np.triu_indices(len(matrix), 1)
    result = np.zeros(matrix.shape)
    result[upper] = _assign_by_rank(matrix[upper], target[upper])
    return result + result.T + np.diag(_assign_by_rank(np.diag(matrix), np.diag(target)))


def nearest_semidefinite(matrix: np.ndarray) -> np.ndarray:
    """Return the positive semi-definite matrix nearest to a symmetric matrix.

    The nearest matrix in the Frobenius norm has 0 in place of the negative eigenvalues.
    """
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 0)) @ vectors.T


class GramComparison(NamedTuple):
    """Differences between a random matrix G and its target A, the Gram matrix whose values it has.

    Attributes:
        sparsity: share of the matrix' entries below a fraction of the target's mean entry.
        target_sparsity: share of the target's entries below the same value.
        ks_distance: Kolmogorov-Smirnov distance of the entries.
        smallest_eigenvalue: smallest eigenvalue divided by the largest.
        spectrum_distance: ``|λ - λ*| / |λ*|`` of the sorted eigenvalues of matrix and target. It is 0 if the
            matrix is the target with permuted channels.
        sorted_distance: ``|G - A| / |A|`` after the channels of both are sorted by the diagonal. It is also 0
            if the matrix is the target with permuted channels.
    """

    sparsity: float
    target_sparsity: float
    ks_distance: float
    smallest_eigenvalue: float
    spectrum_distance: float
    sorted_distance: float


def compare_grams(matrix: np.ndarray, target: np.ndarray, *, threshold: float) -> GramComparison:
    """Compare a matrix with its target.

    Args:
        matrix: symmetric matrix, ``[N, N]``.
        target: symmetric matrix, ``[N, N]``.
        threshold: fraction of the target's mean entry; the sparsity is the share of the entries below it.

    Returns:
        The differences between matrix and target.
    """
    matrix, target = np.asarray(matrix, np.float64), np.asarray(target, np.float64)
    eigenvalues, target_eigenvalues = np.linalg.eigvalsh(matrix), np.linalg.eigvalsh(target)
    limit = threshold * target.mean()
    spectrum_difference = np.linalg.norm(eigenvalues - target_eigenvalues)
    sorted_difference = np.linalg.norm(_sort_channels(matrix) - _sort_channels(target))
    return GramComparison(
        sparsity=float((matrix < limit).mean()),
        target_sparsity=float((target < limit).mean()),
        ks_distance=ks_distance(matrix, target),
        smallest_eigenvalue=float(eigenvalues[0] / eigenvalues[-1]),
        spectrum_distance=float(spectrum_difference / np.linalg.norm(target_eigenvalues)),
        sorted_distance=float(sorted_difference / np.linalg.norm(target)),
    )


def ks_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples.

    It is the largest difference between the empirical cumulative distribution functions, from 0 to 1.

    Example:
        >>> import numpy as np
        >>> from tfstyle.papers.random_grams import ks_distance
        >>> ks_distance(np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.0, 4.0, 5.0, 6.0]))
        0.5
    """
    samples = np.sort(first, None), np.sort(second, None)
    values = np.concatenate(samples)
    cumulative = [np.searchsorted(sample, values, "right") / len(sample) for sample in samples]
    return float(np.abs(cumulative[0] - cumulative[1]).max())


def _assign_by_rank(ranking: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the values in the order of the entries of ``ranking``."""
    result = np.empty(len(ranking))
    result[np.argsort(ranking, kind="stable")] = np.sort(values)
    return result


def _sort_channels(matrix: np.ndarray) -> np.ndarray:
    """Return the matrix with rows and columns sorted by the diagonal."""
    channels = np.argsort(np.diag(matrix), kind="stable")
    return matrix[np.ix_(channels, channels)]

"""Random matrices with the values of a given Gram matrix, and their comparison with it, in NumPy float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def sample_gram(target: np.ndarray, ranking: np.ndarray, *, rounds: int) -> np.ndarray:
    """Make a positive semi-definite matrix with the target's values, ranked about as another matrix.

    From ``ranking`` on it alternates between two projections: give the entries the target's values by their
    ranks (`match_values`), and take the nearest positive semi-definite matrix. The last is the latter, so
    that the result is semi-definite exactly and has the target's values nearly.

    Args:
        target: ``[N, N]``, a Gram matrix.
        ranking: ``[N, N]``, symmetric; only the ranks of its entries count.
        rounds: of both projections. One leaves a Kolmogorov-Smirnov distance of some 0.2 from
            `shuffle_entries`, sixty some 0.02, two hundred some 0.015.

    Returns:
        float64 ``[N, N]``.

    Reference: alternating projections, von Neumann 1950; for matrices Higham 2002, Computing the nearest
    correlation matrix. The values of a given histogram are not a convex set: it need not converge.
    """
    matrix = np.asarray(ranking, np.float64)
    for _ in range(rounds):
        matrix = nearest_semidefinite(match_values(matrix, target))
    return matrix


def shuffle_entries(target: np.ndarray, seed: int) -> np.ndarray:
    """Permute the target's entries, float64 ``[N, N]``; symmetric, its diagonal stays on the diagonal."""
    generator, size = np.random.default_rng(seed), len(target)
    upper = np.triu_indices(size, 1)
    matrix = np.diag(generator.permutation(np.diag(target).astype(np.float64)))
    matrix[upper] = generator.permutation(target[upper])
    return matrix + np.triu(matrix, 1).T


def match_values(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Give a symmetric matrix the target's values by rank, on the diagonal and off it separately."""
    upper = np.triu_indices(len(matrix), 1)
    result = np.zeros(matrix.shape)
    result[upper] = _assign_by_rank(matrix[upper], target[upper])
    return result + result.T + np.diag(_assign_by_rank(np.diag(matrix), np.diag(target)))


def nearest_semidefinite(matrix: np.ndarray) -> np.ndarray:
    """Project a symmetric matrix to the nearest positive semi-definite one: set negative eigenvalues to 0."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 0)) @ vectors.T


class GramComparison(NamedTuple):
    """Differences between a matrix and the Gram matrix whose values it was given.

    Attributes:
        sparsity, target_sparsity: share of entries below a part of the target's mean entry.
        ks_distance: Kolmogorov-Smirnov distance of all entries.
        smallest_eigenvalue: as a part of the largest.
        spectrum_distance: ``|λ - λ*| / |λ*|`` of the sorted eigenvalues; 0 for the target's channels
            permuted.
        sorted_distance: ``|G - A| / |A|`` with the channels of both sorted by their diagonals; also 0 then,
            since a permutation must take equal diagonals to each other.
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
        matrix, target: ``[N, N]``, symmetric.
        threshold: a part of the target's mean entry, below which an entry counts as empty.
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
    """Compute the Kolmogorov-Smirnov distance, the largest difference of two cumulative distributions."""
    samples = np.sort(first, None), np.sort(second, None)
    values = np.concatenate(samples)
    cumulative = [np.searchsorted(sample, values, "right") / len(sample) for sample in samples]
    return float(np.abs(cumulative[0] - cumulative[1]).max())


def _assign_by_rank(ranking: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sort the values as the entries of ``ranking`` are sorted."""
    result = np.empty(len(ranking))
    result[np.argsort(ranking, kind="stable")] = np.sort(values)
    return result


def _sort_channels(matrix: np.ndarray) -> np.ndarray:
    """Sort rows and columns by the diagonal."""
    channels = np.argsort(np.diag(matrix), kind="stable")
    return matrix[np.ix_(channels, channels)]

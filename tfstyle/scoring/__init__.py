"""Scores of stylised images for style, content and artefacts, independent of the losses that made them."""

from tfstyle.scoring.artefacts import frame, ripple
from tfstyle.scoring.distances import directions, energy_distance, sample, self_similarity_distance
from tfstyle.scoring.gaussians import (
    Moments,
    e_statistic,
    feature_moments,
    gaussian_divergence,
    projected_moments,
)
from tfstyle.scoring.judging import Judge, Score, genuine_weights, score

__all__ = [
    "Judge",
    "Moments",
    "Score",
    "directions",
    "e_statistic",
    "energy_distance",
    "feature_moments",
    "frame",
    "gaussian_divergence",
    "genuine_weights",
    "projected_moments",
    "ripple",
    "sample",
    "score",
    "self_similarity_distance",
]

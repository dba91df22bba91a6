"""Image optimisers, each a set of functions, and the compiled optimisation step."""

from tfstyle.optim.base import HIGH, LOW, Evaluate, Optimizer, Terms
from tfstyle.optim.derivatives import all_derivatives, first_derivatives_suffice, only_first_derivatives
from tfstyle.optim.first_order import adam, averaged
from tfstyle.optim.keras_adapter import from_keras
from tfstyle.optim.pyramid import collapse_pyramid, in_pyramid, laplacian_pyramid
from tfstyle.optim.quasi_newton import lbfgs, lbfgs_fixed_step
from tfstyle.optim.step import Step, loss_scale, make_step, value_and_gradient

__all__ = [
    "HIGH",
    "LOW",
    "Evaluate",
    "Optimizer",
    "Step",
    "Terms",
    "adam",
    "all_derivatives",
    "averaged",
    "collapse_pyramid",
    "first_derivatives_suffice",
    "from_keras",
    "in_pyramid",
    "laplacian_pyramid",
    "lbfgs",
    "lbfgs_fixed_step",
    "loss_scale",
    "make_step",
    "only_first_derivatives",
    "value_and_gradient",
]

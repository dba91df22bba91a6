"""Style transfer runs: inputs, scales, the optimisation from coarse to fine, checkpoints and results."""

from tfstyle.run.batch import Job, contact_sheets, is_finished, plan_jobs, run_jobs, save_contact_sheets
from tfstyle.run.callbacks import Callback, calling
from tfstyle.run.checkpoints import (
    Checkpoint,
    CheckpointFolder,
    CheckpointWriter,
    open_checkpoints,
    read_checkpoint,
)
from tfstyle.run.inputs import ScaleTargets, TransferInputs, fit_to_size, read_inputs
from tfstyle.run.layout import Layout, describe_layout, plan_layouts
from tfstyle.run.results import History, Iteration, Result
from tfstyle.run.run import Run
from tfstyle.run.setup import (
    Scale,
    TransferSetup,
    call_as_graph,
    choose_layers,
    content_weight,
    iterations_per_scale,
    layer_shapes,
    make_objective,
    make_setup,
    plan_scales,
    scale_shapes,
)
from tfstyle.run.transfer import Iterations, apply_fine_style, interpolate, iterate, mix_styles, stylize

__all__ = [
    "Callback",
    "Checkpoint",
    "CheckpointFolder",
    "CheckpointWriter",
    "History",
    "Iteration",
    "Iterations",
    "Job",
    "Layout",
    "Result",
    "Run",
    "Scale",
    "ScaleTargets",
    "TransferInputs",
    "TransferSetup",
    "apply_fine_style",
    "call_as_graph",
    "calling",
    "choose_layers",
    "contact_sheets",
    "content_weight",
    "describe_layout",
    "fit_to_size",
    "interpolate",
    "is_finished",
    "iterate",
    "iterations_per_scale",
    "layer_shapes",
    "make_objective",
    "make_setup",
    "mix_styles",
    "open_checkpoints",
    "plan_jobs",
    "plan_layouts",
    "plan_scales",
    "read_checkpoint",
    "read_inputs",
    "run_jobs",
    "save_contact_sheets",
    "scale_shapes",
    "stylize",
]

"""``tfstyle pretrain``: learn an encoder's filters from images without labels."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from tfstyle.cli.common import DONE, check_images_or_folders, check_weights, load_tensorflow
from tfstyle.cli.terminal import report


def run_pretrain(options: argparse.Namespace) -> int:
    """Run ``tfstyle pretrain`` and return its exit code."""
    from tfstyle.files import check_weights_output

    output = Path(options.output)
    check_weights_output(output, overwrite=options.overwrite)
    check_images_or_folders(options.images)
    if options.base is not None:
        check_weights(options.base)

    load_tensorflow()
    from tfstyle.cli.progress import count_display
    from tfstyle.network.pretraining import pretrain

    start = time.perf_counter()
    with count_display(sys.stderr) as show:
        learned = pretrain(
            options.images,
            blocks=options.blocks,
            base=options.base,
            seed=options.seed,
            patches=options.patches,
            progress=show,
        )
    learned.save(output, overwrite=options.overwrite, half=options.half)
    layers = [layer.keras_name for layer in learned.layers]
    report(
        f"{output}: {layers[0]} to {layers[-1]}, {learned.note}, in {time.perf_counter() - start:.0f} s\n"
        f"Use it with --weights {shlex.quote(str(output))}",
        saved=output,
    )
    return DONE

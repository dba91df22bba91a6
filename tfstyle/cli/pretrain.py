"""``tfstyle pretrain``: learn an encoder's filters from images without labels."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from tfstyle.cli.common import DONE


def pretrain(options: argparse.Namespace) -> int:
    """``tfstyle pretrain``."""
    from tfstyle.cli.progress import count_display
    from tfstyle.network.pretraining import pretrain
    from tfstyle.network.weights import check_weights_output

    output = Path(options.output)
    check_weights_output(output, options.overwrite)
    began = time.perf_counter()
    with count_display(sys.stderr) as show:
        learned = pretrain(
            options.images, options.blocks, options.base, options.seed, options.patches, progress=show
        )
    learned.save(output, options.overwrite, options.half)
    layers = learned.layer_names
    print(
        f"{output}: {layers[0]} to {layers[-1]}, {learned.note}, in {time.perf_counter() - began:.0f} s\n"
        f"use it with --weights {shlex.quote(str(output))}"
    )
    return DONE

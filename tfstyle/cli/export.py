"""``tfstyle export``: write a SavedModel for TensorFlow Serving."""

from __future__ import annotations

import argparse
import dataclasses
import json

from tfstyle.cli.common import DONE, load_tensorflow
from tfstyle.cli.extract import check_extractor_options, make_extractor
from tfstyle.cli.terminal import report


def run_export(options: argparse.Namespace) -> int:
    """Run ``tfstyle export`` and return its exit code."""
    from tfstyle.files import check_model_name

    check_model_name(options.name)
    check_extractor_options(options)

    load_tensorflow()
    from tfstyle.serving.signatures import Limits

    names = [field.name for field in dataclasses.fields(Limits)]
    limits = Limits(**{name: getattr(options, name) for name in names if hasattr(options, name)})
    path = make_extractor(options).export(
        options.folder,
        name=options.name,
        version=options.model_version,
        precision=options.precision,
        limits=limits,
        overwrite=options.overwrite,
    )
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    contract = json.loads((path / "assets.extra" / "tfstyle.json").read_text(encoding="utf-8"))
    report(f"{path}: {', '.join(contract['signatures'])}; {size / 1e6:.1f} MB", saved=path)
    return DONE

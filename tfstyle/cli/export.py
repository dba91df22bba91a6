"""``tfstyle export``: write a SavedModel for TensorFlow Serving."""

from __future__ import annotations

import argparse
import json

from tfstyle.cli.common import DONE
from tfstyle.cli.extract import make_extractor


def export(options: argparse.Namespace) -> int:
    """``tfstyle export``."""
    from tfstyle.serving.signatures import Limits

    given = vars(options)
    limits = Limits(**{key: given[key] for key in Limits.__dataclass_fields__ if key in given})
    path = make_extractor(options).export(
        options.folder, options.name, options.model_version, options.precision, limits, options.overwrite
    )
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    contract = json.loads((path / "assets.extra" / "tfstyle.json").read_text(encoding="utf-8"))
    print(f"{path}: {', '.join(contract['signatures'])}; {size / 1e6:.1f} MB")
    return DONE

"""Options: every one checked, and the command line's flags are the same ones."""

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfstyle
from tfstyle import StyleConfig, preset
from tfstyle.cli import parser
from tfstyle.config import StyleOptions, TransferOptions
from tfstyle.errors import ConfigError
from tfstyle.presets import PRESETS


def test_the_defaults_are_valid_and_survive_json():
    for name in PRESETS:
        config = preset(name).replace({"content_layers": ["conv1_1"], "style_blend": [1, 2.5]})
        stored = json.loads(json.dumps(config.as_dict()))
        assert StyleConfig().replace(stored) == config
        assert config.content_layers == ("conv1_1",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "size is 0; it must be from 1 to 100000"),
        ({"size": 5.5}, "size is 5.5; expected int"),
        ({"size": True}, "size is True; expected int"),
        ({"enlarge": 1}, "expected bool"),
        ({"content_weight": -1}, "at least 0"),
        ({"content_weight": float("nan")}, "at least 0"),
        ({"style_weight": float("inf")}, "at least 0"),
        ({"content_weight": "much"}, "expected float"),
        ({"pooling": "min"}, "it can be avg, max"),
        ({"loss_normalization": "metric"}, "it can be balanced, paper"),
        ({"optimizer": "sgd"}, "it can be adam, lbfgs"),
        ({"device": "tpu"}, "it can be auto, cpu, gpu:0"),
        ({"style_layers": "conv1_1"}, "expected tuple"),
        ({"style_layers": ()}, "is empty"),
        ({"style_layers": ("conv1_1", 2)}, "expected tuple"),
        ({"style_layers": ("conv1_1", "conv1_1")}, "style_layers.*once"),
        ({"style_blend": (1, -1)}, "at least 0"),
        ({"style_blend": (0, 0)}, "all zero"),
        ({"style_layer_weights": (1, 2)}, "style_layer_weights needs style_layers"),
        ({"content_layers": ("conv4_2",), "content_layer_weights": (1, 2)}, "as many entries"),
        ({"style_layers": ("conv1_1",), "style_layer_weights": (0,)}, "all zero"),
        ({"content_weight": 0, "style_weight": 0, "tv_weight": 0}, "all 0.*positive"),
        ({"lbfgs_history": 101}, "from 1 to 100"),
        ({"seed": -1}, "from 0 to"),
        ({"tolerance": 2.0}, "from 0 to 1"),
        ({"iterations": None}, "expected int"),
        ({"widht": 3}, "no option 'widht'"),
    ],
)
def test_bad_values_are_refused_with_what_would_be_right(changes, message):
    with pytest.raises(ConfigError, match=message):
        StyleConfig().replace(changes)


def test_paths_and_numpys_numbers_are_taken():
    config = StyleConfig().replace(
        {"size": np.int64(64), "tv_weight": np.float32(0.5), "weights": Path("a.npz")}
    )
    assert (config.size, config.tv_weight, config.weights) == (64, 0.5, "a.npz")
    json.dumps(config.as_dict())


def test_unknown_presets_are_refused():
    with pytest.raises(ConfigError, match="gatys2016"):
        preset("gatys2015")


def test_the_papers_preset_is_the_papers():
    """Gatys et al. 2016: normalised weights, raw sums, alpha/beta 1e-3, noise start, L-BFGS."""
    config = preset("gatys2016")
    assert (config.normalize_weights, config.loss_normalization, config.init, config.optimizer) == (
        True,
        "paper",
        "noise",
        "lbfgs",
    )
    assert config.content_weight / config.style_weight == pytest.approx(1e-3)
    assert (config.pooling, config.scales, config.tv_weight) == ("avg", 1, 0)


SAMPLES = {
    "bool": ("", True),
    "int": ("7", 7),
    "float": ("0.25", 0.25),
    "str": ("word", "word"),
    "int | str": ("7", "7"),
}


@pytest.mark.parametrize("field", dataclasses.fields(StyleConfig), ids=lambda field: field.name)
def test_every_option_is_a_flag_and_arrives_as_it_was_given(field):
    kind = str(field.type).replace(" | None", "")
    if kind.startswith("tuple"):
        samples = {"float": ("1,2.5", (1.0, 2.5)), "int": ("3,4", (3, 4))}
        text, value = next(
            (sample for name, sample in samples.items() if name in kind),
            ("conv1_1, conv2_1", ("conv1_1", "conv2_1")),
        )
    else:
        text, value = SAMPLES[kind]
    if field.metadata["choices"]:
        text = value = tuple(field.metadata["choices"])[-1]
        value = (value,) if kind.startswith("tuple") else value
    arguments = [
        "stylize",
        "c",
        "s",
        "-o",
        "o.png",
        f"--{field.name.replace('_', '-')}",
        *([text] if text else []),
    ]
    options = parser.make_parser().parse_args(arguments)
    assert getattr(options, field.name) == value
    assert not hasattr(parser.make_parser().parse_args(arguments[:5]), field.name)  # not given: no value


def test_options_are_typed_as_the_fields_are():
    """Sequences for tuples, and paths for what can be a file; else the very types."""
    fields = {field.name: str(field.type) for field in dataclasses.fields(StyleConfig)}
    paths = {"weights", "init", "fine_style", "content_mask", "masks", "style_masks"}
    expected = {}
    for name, kind in fields.items():
        kind = re.sub(r"tuple\[(\w+), \.\.\.\]", r"Sequence[\1]", kind)
        expected[name] = kind.replace("str", "str | os.PathLike[str]") if name in paths else kind
    options = {name: hint.__forward_arg__ for name, hint in StyleOptions.__annotations__.items()}
    assert options == expected
    assert StyleOptions.__total__ is False


def test_stylize_takes_every_option_by_name_or_as_an_argument_of_its_own():
    arguments = set(inspect.signature(tfstyle.stylize).parameters)
    assert set(TransferOptions.__annotations__) == set(StyleOptions.__annotations__) - arguments


@pytest.mark.slow
def test_a_type_checker_knows_the_options(tmp_path):
    good = """
import tfstyle
tfstyle.stylize("c.png", "s.png", size=512, style_layers=["conv1_1"], optimizer="adam", weights="random")
list(tfstyle.iterate("c.png", "s.png", scales=2))
tfstyle.StyleConfig().replace(size=512, optimizer="adam").replace({"size": 256})
"""
    bad = [
        'tfstyle.stylize("c.png", "s.png", sise=512)',
        'tfstyle.stylize("c.png", "s.png", size="large")',
        'tfstyle.iterate("c.png", "s.png", stile_weight=2.0)',
        "tfstyle.StyleConfig().replace(sise=512)",
        "tfstyle.Encoder(('conv1_1',), 'random', 'max')",
    ]
    lines = good.strip("\n").splitlines()
    (tmp_path / "use.py").write_text("\n".join([*lines, *bad]) + "\n")
    command = [sys.executable, "-m", "mypy", "--no-incremental", "--follow-imports=silent", "use.py"]
    environment = {**os.environ, "MYPYPATH": str(Path(tfstyle.__file__).parents[1])}
    checked = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    wrong = {int(line.split(":")[1]) for line in checked.stdout.splitlines() if ": error:" in line}
    assert wrong == set(range(len(lines) + 1, len(lines) + len(bad) + 1)), checked.stdout


def test_replace_takes_a_mapping_or_keywords_which_win():
    config = StyleConfig().replace({"size": 100, "scales": 2}, size=200)
    assert (config.size, config.scales) == (200, 2)
    assert StyleConfig().replace() == StyleConfig()
    with pytest.raises(ConfigError, match="no option 'sise'"):
        StyleConfig().replace(sise=3)

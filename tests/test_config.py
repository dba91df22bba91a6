"""Options: checks of their values, and their agreement with the command line and the type hints."""

import copy
import dataclasses
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfstyle
from tfstyle import StyleConfig, preset
from tfstyle.cli import parser
from tfstyle.config import ADDED_OPTIONS, QUALITIES, StyleOptions, TransferOptions, quality_options
from tfstyle.errors import ConfigError
from tfstyle.presets import PRESETS


def test_the_defaults_are_valid_and_survive_json():
    for name in PRESETS:
        config = preset(name).replace({"content_layers": ["conv1_1"], "style_blend": [1, 2.5]})
        stored = json.loads(json.dumps(config.as_dict()))
        assert StyleConfig().replace(stored) == config
        assert config.content_layers == ("conv1_1",)


def test_a_single_value_is_a_tuple_of_one():
    config = StyleConfig(style_layers="conv1_1", style_blend=2, style_size=20)
    assert (config.style_layers, config.style_blend, config.style_size) == (("conv1_1",), (2,), (20,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, r"^size .*\b0\b.* 1 to 100000"),
        ({"size": 5.5}, r"^size .*5\.5.* int"),
        ({"size": True}, r"^size .*True.* int"),
        ({"enlarge": 1}, r"^enlarge .*1.* bool"),
        ({"content_weight": -1}, r"^content_weight .*-1.* at least 0"),
        ({"content_weight": float("nan")}, r"^content_weight .*nan.* at least 0"),
        ({"style_weight": float("inf")}, r"^style_weight .*inf.* at least 0"),
        ({"content_weight": "much"}, r"^content_weight .*'much'.* float"),
        ({"pooling": "min"}, r"^pooling .*'min'.* avg, max"),
        ({"loss_normalization": "metric"}, r"^loss_normalization .*'metric'.* balanced, paper"),
        ({"optimizer": "sgd"}, r"^optimizer .*'sgd'.* adam, lbfgs"),
        ({"device": "tpu"}, r"^device .*'tpu'.* auto, cpu, gpu:0"),
        ({"style_layers": 5}, r"^style_layers .*5.* tuple\[str"),
        ({"style_blend": "a"}, r"^style_blend .*'a'.* tuple\[float"),
        ({"style_layers": ()}, r"^style_layers .*empty.* at least one"),
        ({"style_layers": ("conv1_1", 2)}, r"^style_layers .*'conv1_1', 2.* tuple\[str"),
        ({"style_layers": ("conv1_1", "conv1_1")}, r"^style_layers .*'conv1_1', 'conv1_1'.* once"),
        ({"style_blend": (1, -1)}, r"^style_blend .*\(1, -1\).* at least 0"),
        ({"style_blend": (0, 0)}, r"^style_blend .*zero.* positive"),
        ({"style_layer_weights": (1, 2)}, r"^style_layer_weights needs style_layers .*2"),
        (
            {"content_layers": ("conv4_2",), "content_layer_weights": (1, 2)},
            r"^content_layer_weights needs content_layers .*2",
        ),
        (
            {"style_layers": ("conv1_1",), "style_layer_weights": (0,)},
            r"^style_layer_weights .*zero.* positive",
        ),
        (
            {"content_weight": 0, "style_weight": 0, "tv_weight": 0},
            r"content_weight, style_weight and tv_weight .*0.* positive",
        ),
        ({"lbfgs_history": 101}, r"^lbfgs_history .*101.* 1 to 100"),
        ({"seed": -1}, r"^seed .*-1.* 0 to 4294967295"),
        ({"tolerance": 2.0}, r"^tolerance .*2\.0.* 0 to 1"),
        ({"iterations": None}, r"^iterations .*None.* int"),
        ({"widht": 3}, r"'widht'.* 'size', "),
    ],
)
def test_errors_name_the_option_the_value_and_what_is_allowed(changes, message):
    with pytest.raises(ConfigError, match=message):
        StyleConfig().replace(changes)


def test_paths_and_numpy_numbers_are_converted():
    config = StyleConfig().replace(
        {"size": np.int64(64), "tv_weight": np.float32(0.5), "weights": Path("a.npz")}
    )
    assert (config.size, config.tv_weight, config.weights) == (64, 0.5, "a.npz")
    json.dumps(config.as_dict())


def test_the_papers_preset_is_the_papers():
    """Gatys et al. 2016, section 2, and Fig. 3 B for the ratio of the weights."""
    config = preset("gatys2016")
    assert (config.normalize_weights, config.loss_normalization, config.init, config.optimizer) == (
        True,
        "paper",
        "noise",
        "lbfgs",
    )
    assert config.content_weight / config.style_weight == pytest.approx(1e-3)
    assert (config.pooling, config.scales, config.tv_weight) == ("avg", 1, 0)


#: Type of an option -> its argument on the command line, and the value.
SAMPLES = {
    "bool": ("", True),
    "int": ("7", 7),
    "float": ("0.25", 0.25),
    "str": ("word", "word"),
    "int | str": ("7", "7"),
}


@pytest.mark.parametrize("field", dataclasses.fields(StyleConfig), ids=lambda field: field.name)
def test_every_option_is_a_flag_of_the_command_line(field):
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
    assert not hasattr(
        parser.make_parser().parse_args(arguments[:5]), field.name
    )  # a flag that is not given has no value


def test_options_are_typed_as_the_fields_are():
    """Tuples become sequences, options that can be a file also take a path, and other types are the same."""
    fields = {field.name: str(field.type) for field in dataclasses.fields(StyleConfig)}
    paths = {"weights", "init", "fine_style", "content_mask", "masks", "style_masks"}
    expected = {}
    for name, kind in fields.items():
        kind = re.sub(r"tuple\[(\w+), \.\.\.\]", r"Sequence[\1]", kind)
        expected[name] = kind.replace("str", "str | os.PathLike[str]") if name in paths else kind
    options = {name: hint.__forward_arg__ for name, hint in StyleOptions.__annotations__.items()}
    assert options == expected
    assert StyleOptions.__total__ is False


def test_stylize_takes_every_option_as_a_keyword():
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


MADE_UP = {
    "draft": {"iterations": 5, "first_iterations": 9, "iteration_decay": 3.0},
    "standard": {"iterations": 20, "first_iterations": 40, "iteration_decay": 2.0},
    "high": {"iterations": 30},
}


@pytest.fixture
def made_up(monkeypatch):
    for module in ("tfstyle.config", "tfstyle.cli.parser"):
        monkeypatch.setattr(f"{module}.QUALITIES", MADE_UP)


def values(config, names):
    return {name: getattr(config, name) for name in names}


def counts(config):
    return config.iterations, config.first_iterations, config.iteration_decay


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_quality_sets_its_options_and_no_other(quality):
    options, config = QUALITIES[quality], StyleConfig(quality=quality)
    assert set(options) <= set(quality_options())
    assert values(config, options) == options
    assert config.quality == config.as_dict()["quality"] == quality
    others = set(config.as_dict()) - {"quality", *options, *QUALITIES["standard"]}
    assert values(config, others) == values(StyleConfig(), others)
    assert StyleConfig().replace(json.loads(json.dumps(config.as_dict()))) == config


def test_the_usual_quality_is_standard():
    assert StyleConfig() == StyleConfig(quality="standard")
    assert StyleConfig(quality="draft").iterations < StyleConfig().iterations
    with pytest.raises(ConfigError, match=r"^quality is 'hihg' .*'high'.* draft, standard, high"):
        StyleConfig(quality="hihg")


@pytest.mark.usefixtures("made_up")
def test_options_that_are_given_take_precedence_over_the_quality():
    given = {"first_iterations": 7, "iteration_decay": None}
    for config in (
        StyleConfig(quality="draft", **given),
        StyleConfig().replace({"quality": "draft", **given}),
        StyleConfig(**given).replace(quality="high").replace(quality="draft"),
        StyleConfig(quality="draft").replace(given),
    ):
        assert counts(config) == (5, 7, None)
        assert not config.has_own_iterations


@pytest.mark.usefixtures("made_up")
def test_another_quality_replaces_what_the_quality_before_had_set():
    draft = StyleConfig(quality="draft")
    assert counts(draft.replace(quality="high")) == (30, None, None)
    assert draft.replace(quality="high") == StyleConfig(quality="high")
    assert draft.replace(size=64).replace(quality="standard") == StyleConfig(size=64)
    assert draft.replace(quality="high", iterations=5).iterations == 5
    assert draft.replace(first_iterations=8).replace(quality="standard").first_iterations == 8


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("iterations", [20, 21])
def test_the_quality_has_no_effect_if_the_iterations_are_given(iterations):
    """This is so even if the number is that of the quality, as 20 is here."""
    for config in (
        StyleConfig(iterations=iterations),
        StyleConfig().replace(iterations=iterations),
        StyleConfig(quality="draft", iterations=iterations).replace(quality="standard"),
        StyleConfig(iterations=iterations).replace(size=64).replace(size=512),
        copy.deepcopy(StyleConfig(iterations=iterations)).replace(quality="standard"),
        pickle.loads(pickle.dumps(StyleConfig(iterations=iterations))).replace(quality="standard"),
    ):
        assert counts(config) == (iterations, None, None)
        assert config.has_own_iterations
    assert counts(StyleConfig(iterations=20, first_iterations=9)) == (20, 9, None)


@pytest.mark.usefixtures("made_up")
def test_the_help_shows_the_default_of_every_quality():
    command = parser.make_parser(show_all=True)._subparsers._group_actions[0].choices["stylize"]
    texts = {action.dest: action.help for action in command._actions}
    assert texts["iterations"].endswith(" [20; 5 with --quality draft; 30 with --quality high]")
    first = texts["first_iterations"]
    assert first.endswith(" [40; 9 with --quality draft; --iterations with --quality high]")
    assert texts["iteration_decay"].endswith(" [2; 3 with --quality draft; no decay with --quality high]")
    assert texts["seed"].endswith(" [0]")


def test_replace_takes_a_mapping_or_keywords_which_win():
    config = StyleConfig().replace({"size": 100, "scales": 2}, size=200)
    assert (config.size, config.scales) == (200, 2)
    assert StyleConfig().replace() == StyleConfig()
    with pytest.raises(ConfigError, match=r"'sise'.*'size'"):
        StyleConfig().replace(sise=3)


#: The options of the first images with stored settings. The list never changes.
FIRST_OPTIONS = {
    "size", "size_of", "enlarge", "style_scale", "style_size", "weights", "network", "pooling", "padding",
    "pixel_range", "feature_scale", "normalize_weights", "content_layers", "style_layers",
    "content_layer_weights", "style_layer_weights", "content_weight", "style_weight", "style_losses",
    "style_loss_weights", "tv_weight", "tv_form", "normalize_gradients", "style_blend", "fine_style",
    "loss_normalization", "color", "masks", "style_masks", "content_mask", "mask_blur", "guidance", "init",
    "init_noise", "optimizer", "learning_rate", "beta_1", "beta_2", "epsilon", "epsilon_corrected",
    "lbfgs_history", "clamp", "ema_decay", "warm_start", "iterations", "first_iterations",
    "iteration_decay", "scales", "scale_factor", "min_scale", "tolerance", "seed", "compile", "device",
    "precision", "steps_per_call", "tile", "memory", "max_pixels",
}  # fmt: skip


def test_every_option_that_was_added_later_has_a_value_for_older_images():
    """Otherwise the settings of an older image would not be recognised as those of an image."""
    fields = {field.name for field in dataclasses.fields(StyleConfig)}
    assert fields - FIRST_OPTIONS == {"quality", *ADDED_OPTIONS}
    assert fields >= FIRST_OPTIONS
    StyleConfig(**ADDED_OPTIONS)

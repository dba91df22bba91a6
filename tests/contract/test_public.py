"""The public contract: names, signatures and defaults that other code depends on."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import tfstyle
from tfstyle import errors
from tfstyle.config import TransferOptions


def test_every_public_name_exists_and_is_documented():
    assert set(tfstyle.__all__) == {"__version__", *tfstyle._HOMES}
    for name in tfstyle.__all__:
        value = getattr(tfstyle, name)
        assert name == "__version__" or inspect.getdoc(value), name
    assert set(dir(tfstyle)) == {*tfstyle.__all__, *tfstyle._SUBMODULES}


def test_every_module_and_folder_is_an_attribute_after_import_tfstyle():
    package = Path(tfstyle.__file__).parent
    files = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert set(tfstyle._SUBMODULES) == files | folders
    for name in files | folders:  # not getattr, because importing a module sets the attribute
        assert tfstyle.__getattr__(name) is importlib.import_module(f"tfstyle.{name}")


def test_the_supported_versions_of_python_are_those_of_tensorflow():
    """TensorFlow has no release for Python 3.14, only a release candidate."""
    root = Path(tfstyle.__file__).parents[1]
    (required,) = re.findall(
        r'requires-python = "(.*)"', (root / "pyproject.toml").read_text(encoding="utf-8")
    )
    versions = SpecifierSet(required)
    assert [minor for minor in range(30) if f"3.{minor}" in versions] == [10, 11, 12, 13]
    assert "3.13.9" in versions
    assert "3.14.0rc1" not in versions
    for page in ("README.md", "docs/stacks.md"):
        assert "Python 3.10 to 3.13 are supported" in (root / page).read_text(encoding="utf-8")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"tfstyle.*paint"):
        tfstyle.paint  # noqa: B018


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (
            tfstyle.stylize,
            [
                "content",
                "style",
                "config",
                "encoder",
                "optimizer",
                "callback",
                "masks",
                "extra_losses",
                "checkpoint",
                "checkpoint_every",
                "resume",
                "seconds",
                "options",
            ],
        ),
        (
            tfstyle.iterate,
            [
                "content",
                "style",
                "config",
                "encoder",
                "optimizer",
                "masks",
                "extra_losses",
                "checkpoint",
                "checkpoint_every",
                "resume",
                "seconds",
                "setup",
                "options",
            ],
        ),
        (tfstyle.interpolate, ["content", "styles", "config", "count", "encoder", "stop"]),
        (tfstyle.make_step, ["objective", "optimizer", "compile", "steps"]),
        (
            tfstyle.Encoder,
            ["layers", "weights", "pooling", "padding", "dtype", "network", "pixel_range", "feature_scale"],
        ),
        (tfstyle.Encoder.from_model, ["model", "preprocess", "layers", "minimum_size"]),
        (tfstyle.Encoder.normalized, ["self", "images"]),
        (
            tfstyle.StyleExtractor,
            [
                "layers",
                "weights",
                "pooling",
                "padding",
                "dtype",
                "content_layers",
                "views",
                "embedding_size",
                "size",
            ],
        ),
        (tfstyle.StyleExtractor.__call__, ["self", "images"]),
        (tfstyle.StyleExtractor.content, ["self", "images"]),
        (tfstyle.StyleExtractor.style, ["self", "image", "name"]),
        (
            tfstyle.StyleExtractor.export,
            ["self", "path", "name", "version", "precision", "limits", "overwrite"],
        ),
        (tfstyle.Style.load, ["path", "name"]),
        (tfstyle.score, ["content", "style", "images", "weights", "reference"]),
        (tfstyle.Style.save, ["self", "path", "overwrite"]),
    ],
)
def test_signatures(function, names):
    assert list(inspect.signature(function).parameters) == names


def defaults_of(function):
    return {p.name: p.default for p in inspect.signature(function).parameters.values()}


@pytest.mark.parametrize("function", [tfstyle.Encoder, tfstyle.StyleExtractor, tfstyle.StyleConfig])
def test_whatever_encodes_an_image_has_the_same_defaults(function):
    """With equal defaults the same image has the same Gram matrices everywhere."""
    expected = {"weights": "imagenet", "pooling": "avg", "padding": "reflect"}
    defaults = defaults_of(function)
    assert {name: defaults[name] for name in expected} == expected


def test_half_precision_is_a_runs_own_choice():
    assert defaults_of(tfstyle.Encoder)["dtype"] == defaults_of(tfstyle.StyleExtractor)["dtype"] == "float32"
    assert tfstyle.StyleConfig().precision == tfstyle.StyleConfig().compile == "auto"


def test_adam_by_name_and_by_function_have_the_same_defaults():
    config, defaults = tfstyle.StyleConfig(), defaults_of(tfstyle.adam)
    for name in ("learning_rate", "beta_1", "beta_2", "epsilon"):
        assert defaults[name] == getattr(config, name), name
    assert defaults["corrected"] == config.epsilon_corrected
    assert defaults_of(tfstyle.lbfgs)["history"] == config.lbfgs_history


def test_results_have_the_promised_fields():
    fields = {field.name for field in dataclasses.fields(tfstyle.Result)}
    assert {"image", "history"} <= fields
    assert {"iteration", "scale", "total", "content", "style", "tv", "spectrum", "seconds"} <= set(
        vars(tfstyle.History())
    )


def test_the_options_of_the_losses_are_keyword_arguments_of_a_run():
    names = {
        "content_weight", "style_weight", "tv_weight", "spectrum_weight", "border_weight",
        "style_losses", "style_layer_decay", "style_layer_weights", "content_loss", "self_similarity_weight",
    }  # fmt: skip
    fields = {field.name: field for field in dataclasses.fields(tfstyle.StyleConfig)}
    assert names <= set(fields)
    assert names <= set(TransferOptions.__annotations__)
    losses = fields["style_losses"].metadata["choices"]
    assert {"gram", "normalized_gram", "mean_deviation", "wasserstein", "sliced"} <= set(losses)
    # The default losses are those of Gram matrices, so that a style file can stand for its image.
    assert set(tfstyle.StyleConfig().style_losses) <= {"gram", "normalized_gram"}
    for name in ("spectrum_weight", "border_weight", "self_similarity_weight"):
        with pytest.raises(errors.ConfigError, match=rf"^{name} is -1\b.* 0"):
            tfstyle.StyleConfig(**{name: -1})


def test_the_exception_tree_matches_its_documentation():
    for kind in (errors.ConfigError, errors.ImageError, errors.WeightsError, errors.BackendError):
        assert issubclass(kind, errors.InputError)
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.NotFiniteError, errors.RunError)
    assert issubclass(errors.RunError, RuntimeError)
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, Exception):
            assert name in errors.__doc__
            assert issubclass(kind, errors.TfstyleError)

"""Tests of checkpoints: resumed runs, refused checkpoints of other runs, damaged files and failing disks."""

import dataclasses
import json
import logging
import math
import os
import re
import shutil
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfstyle
from tests.conftest import make_image
from tfstyle import Encoder, StyleConfig, iterate, stylize
from tfstyle.backend import KERAS_2
from tfstyle.errors import ConfigError, NotFiniteError, OutputError
from tfstyle.files import digest
from tfstyle.losses import LossNormalization, balanced_normalization
from tfstyle.optim import Optimizer, from_keras
from tfstyle.run import (
    Checkpoint,
    CheckpointFolder,
    CheckpointWriter,
    History,
    Run,
    make_setup,
    read_checkpoint,
    read_inputs,
)
from tfstyle.run.checkpoints import (
    RunPosition,
    check_same_run,
    chosen_options,
    dependencies,
    differences,
    restore_run,
)
from tfstyle.run.setup import LOSS_NORMALIZATIONS


@pytest.fixture
def options(small_file):
    """Options of a run with two scales, eager because tracing takes most of the time of so small a run."""
    eager = {"compile": "eager", "weights": str(small_file)}
    return {"size": 32, "min_scale": 16, "iterations": 3, **eager}


def files_of(folder):
    return sorted(folder.glob("checkpoint-*.npz"))


def stored_on_the_way(run, folder, to):
    """Return a folder for each checkpoint of a run, with a copy of the checkpoint in it."""
    folders = []

    def copy():
        for path in files_of(folder):
            if to / path.stem not in folders:
                folders.append(to / path.stem)
                folders[-1].mkdir()
                shutil.copy(path, folders[-1])

    for _ in run:
        copy()
    copy()
    return folders


def assert_same(result, whole):
    assert np.array_equal(result.image, whole.image)
    assert result.image.dtype == whole.image.dtype
    series, expected = ({k: v for k, v in vars(r.history).items() if k != "seconds"} for r in (result, whole))
    assert series == expected
    assert [type(v[0]) for v in series.values() if v == list(v)] == [
        type(v[0]) for v in expected.values() if v == list(v)
    ]
    seconds = result.history.seconds
    assert len(seconds) == len(whole.history.seconds)
    assert seconds == sorted(seconds)


RUNS = {
    "adam": ({"optimizer": "adam"}, None),
    "adam, warm start": ({"optimizer": "adam", "warm_start": True}, None),
    "adam, averaged": ({"optimizer": "adam", "ema_decay": 0.9, "warm_start": True}, None),
    "lbfgs": ({}, None),
    "lbfgs, averaged": ({"ema_decay": 0.5}, None),
    "lbfgs_fixed_step": ({"optimizer": "lbfgs_fixed_step", "lbfgs_history": 3}, None),
    "lbfgs, two steps in a call": ({"steps_per_call": 2}, None),
    "initial noise": ({"init": "noise", "seed": 5}, None),
    "bfloat16": ({"precision": "bfloat16"}, None),
    "graph": ({"compile": "graph"}, None),
    "xla": ({"compile": "xla", "scales": 1}, None),
    "tiles, adam": ({"optimizer": "adam", "tile": 12, "warm_start": True}, None),
    "tiles, adam averaged": ({"optimizer": "adam", "tile": 12, "ema_decay": 0.9}, None),
    "tiles, lbfgs": ({"tile": 12}, None),
    "three scales": ({"size": 48, "min_scale": 12, "iterations": 2, "first_iterations": 3}, None),
    "Keras' Nadam": ({}, lambda: keras.optimizers.Nadam(0.02)),
    "Keras' SGD, averaged": ({"ema_decay": 0.8}, lambda: keras.optimizers.SGD(0.5, momentum=0.9)),
    "Keras' Adam with a schedule": (
        {},
        lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5)),
    ),
}


#: Runs that compile with XLA or evaluate many tiles take several times as long as the others.
SLOW_RUNS = {"xla", "tiles, adam", "tiles, adam averaged", "tiles, lbfgs"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW_RUNS else []) for name in RUNS]
)
def test_a_run_resumed_at_any_iteration_gives_the_same_result(name, options, content, style, tmp_path):
    changes, optimizer = RUNS[name]
    config = StyleConfig().replace({**options, **changes})
    whole = Run(content, style, config, optimizer=optimizer and optimizer())
    assert sum(1 for _ in whole) == whole.total_iterations
    checkpoints = CheckpointFolder(tmp_path / "run", every=0.0)
    run = Run(content, style, config, setup=whole.setup, checkpoints=checkpoints)
    stored = stored_on_the_way(run, tmp_path / "run", tmp_path)
    assert_same(run.result(), whole.result())  # checkpoints do not change the result
    calls = [n // run.steps_per_call for n in (scale.iterations for scale in whole.scales)]
    assert len(stored) == sum(calls) + len(calls)  # one after each call, one more at the end of each scale
    for folder in stored:
        checkpoints = CheckpointFolder(folder, every=1e9, resume=True)
        resumed = Run(content, style, config, setup=whole.setup, checkpoints=checkpoints)
        done = len(resumed.history.total)
        assert sum(1 for _ in resumed) == whole.total_iterations - done
        assert_same(resumed.result(), whole.result())


@pytest.mark.slow
def test_a_tolerance_compares_with_losses_before_the_interruption(options, content, style, tmp_path):
    config = StyleConfig().replace({**options, "iterations": 60, "tolerance": 0.5, "optimizer": "adam"})
    whole = Run(content, style, config)
    for _ in whole:
        pass
    counts = [whole.history.scale.count(scale) for scale in (1, 2)]
    assert all(10 < count < 60 for count in counts)  # both scales stop early
    run = Run(
        content,
        style,
        config,
        setup=whole.setup,
        checkpoints=CheckpointFolder(tmp_path / "run", every=0.0),
    )
    stored = stored_on_the_way(run, tmp_path / "run", tmp_path)
    near = [counts[0] - 1, counts[0], counts[0] + 1, len(stored) - 3, len(stored) - 2, len(stored) - 1]
    for folder in [stored[i - 1] for i in (2, 9, *near)] + [stored[-1]]:
        checkpoints = CheckpointFolder(folder, every=1e9, resume=True)
        resumed = Run(content, style, config, setup=whole.setup, checkpoints=checkpoints)
        for _ in resumed:
            pass
        assert_same(resumed.result(), whole.result())


def test_a_run_interrupted_several_times(options, content, style, tmp_path):
    whole = stylize(content, style, **options)
    settings = {**options, "checkpoint": tmp_path / "run", "resume": True}
    for count in (1, 2, 2):  # 1; 2, 3; 1, 2 of the second scale: no iteration is repeated
        for n, _ in enumerate(iterate(content, style, **settings), 1):
            if n == count:
                break
    about = read_checkpoint(files_of(tmp_path / "run")[-1]).about
    assert (about["scale"], about["done"]) == (2, 2)
    assert_same(stylize(content, style, **settings), whole)
    assert_same(
        stylize(content, style, **settings, callback=lambda step: pytest.fail("the run had ended")), whole
    )


def test_an_error_in_the_callback_or_ctrl_c_in_a_step_loses_nothing(options, content, style, tmp_path):
    """Ctrl-C may come after a Keras optimiser has changed its variables in an unfinished step."""

    class Interrupted(keras.optimizers.SGD):
        stop_at = None

        def apply_gradients(self, pairs):
            super().apply_gradients(pairs)
            if int(tf.convert_to_tensor(self.iterations)) == self.stop_at:
                raise KeyboardInterrupt

    def run(**changes):
        optimizer = Interrupted(0.5, momentum=0.9)
        return stylize(content, style, **{**options, "scales": 1, "optimizer": optimizer, **changes})

    whole = run()
    folder = {"checkpoint": tmp_path / "run", "resume": True}
    Interrupted.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        run(**folder)
    Interrupted.stop_at = None
    assert read_checkpoint(files_of(tmp_path / "run")[-1]).about["done"] == 2

    def fail(step):
        assert step.iteration == 3
        raise RuntimeError("raised by the callback")

    with pytest.raises(RuntimeError, match="raised by the callback"):
        run(**folder, callback=fail)
    assert read_checkpoint(files_of(tmp_path / "run")[-1]).about["done"] == 3
    assert_same(run(**folder), whole)


def not_a_number_at(count):
    """Return Adam with an image of NaNs from some step on."""
    adam = tfstyle.adam()

    def step(evaluate, x, state):
        x, state, terms = adam.step(evaluate, x, state)
        return tf.where(state.count >= count, math.nan, x), state, terms

    return adam._replace(step=step)


@pytest.mark.parametrize("bad", [3, 5, 8])
def test_a_resumed_run_that_fails_has_the_same_image(options, content, style, tmp_path, bad):
    config = StyleConfig().replace({**options, "scales": 1, "iterations": 8})
    whole = Run(content, style, config, optimizer=not_a_number_at(bad))
    with pytest.raises(NotFiniteError) as expected:
        list(whole)
    assert np.isfinite(expected.value.result.image).all()
    for done in range(1, bad + 1):
        folder = tmp_path / str(done)
        run = Run(content, style, config, setup=whole.setup, checkpoints=CheckpointFolder(folder))
        for _ in zip(range(done), run):
            pass
        resumed = Run(
            content,
            style,
            config,
            setup=whole.setup,
            checkpoints=CheckpointFolder(folder, resume=True),
        )
        with pytest.raises(NotFiniteError, match=re.escape(str(expected.value))) as caught:
            list(resumed)
        assert np.array_equal(caught.value.result.image, expected.value.result.image)


def test_losses_that_are_not_finite_are_counted_across_the_interruption(
    options, content, style, tmp_path, monkeypatch
):
    infinite = LossNormalization(lambda target: tf.constant(float("inf")), balanced_normalization.style)
    monkeypatch.setitem(LOSS_NORMALIZATIONS, "balanced", infinite)
    settings = {
        **options,
        "scales": 1,
        "iterations": 100,
        "init": "noise",
        "checkpoint": tmp_path,
        "resume": True,
    }
    for _ in zip(range(15), iterate(content, style, **settings)):
        pass
    with pytest.raises(NotFiniteError) as caught:
        stylize(content, style, **settings)
    assert len(caught.value.result.history.total) == 21  # as without the interruption


KERAS = [
    "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lion", "Nadam", "RMSprop", "SGD",
    pytest.param("Lamb", marks=pytest.mark.skipif(KERAS_2, reason="Keras 2.15 has no Lamb")),
]  # fmt: skip


@pytest.mark.parametrize("name", KERAS)
def test_the_state_of_every_keras_optimizer_is_restored_from_arrays(name):
    optimizer = from_keras(getattr(keras.optimizers, name)(0.05))
    curve = tf.constant([[1.0, 3.0], [0.2, 5.0]])

    def evaluate(x):
        return {"total": tf.reduce_sum(curve * (x - 0.3) ** 2)}, 2 * curve * (x - 0.3)

    x = tf.constant([[0.9, 0.5], [0.1, 0.7]])
    state = optimizer.init(x)
    for _ in range(4):
        x, state, _ = optimizer.step(evaluate, x, state)
    middle, arrays = x, optimizer.flatten(state)
    for _ in range(4):
        x, state, _ = optimizer.step(evaluate, x, state)
    resumed, state = middle, optimizer.restore(optimizer.init(middle), arrays)
    for _ in range(4):
        resumed, state, _ = optimizer.step(evaluate, resumed, state)
    assert np.array_equal(resumed, x)
    assert not np.array_equal(resumed, middle)


def test_the_state_of_a_custom_optimizer_in_bfloat16(options, content, style, tmp_path):
    """NumPy stores this data type as bytes."""

    def init(x):
        return {"velocity": tf.cast(tf.zeros_like(x), tf.bfloat16), "n": tf.constant(0)}

    def step(evaluate, x, state):
        terms, gradient = evaluate(x)
        velocity = state["velocity"] * tf.constant(0.9, tf.bfloat16) - tf.cast(0.5 * gradient, tf.bfloat16)
        moved = tf.clip_by_value(x + tf.cast(velocity, tf.float32), 0, 1)
        return moved, {"velocity": velocity, "n": state["n"] + 1}, terms

    optimizer = Optimizer(init, step)
    whole = stylize(content, style, **options, optimizer=optimizer)
    folder = {"checkpoint": tmp_path, "resume": True, "optimizer": optimizer}
    for _ in zip(range(5), iterate(content, style, **options, **folder)):
        pass
    assert_same(stylize(content, style, **options, **folder), whole)


def test_a_resumed_run_uses_the_values_chosen_for_auto(options, content, style, tmp_path, monkeypatch):
    from tfstyle.device import Choice
    from tfstyle.run import setup

    monkeypatch.setattr(setup, "choose_precision", lambda wanted, device: Choice("bfloat16", ""))
    whole = stylize(content, style, **options)
    for _ in zip(range(3), iterate(content, style, **options, checkpoint=tmp_path)):
        pass
    monkeypatch.setattr(
        setup,
        "choose_precision",
        lambda wanted, device: Choice("float32" if wanted == "auto" else wanted, ""),
    )
    result = stylize(content, style, **options, checkpoint=tmp_path, resume=True)
    assert result.facts["precision"] == "bfloat16"
    assert result.config.precision == "auto"
    assert_same(result, whole)
    assert not np.array_equal(stylize(content, style, **options).image, whole.image)  # of float32


def test_a_resumed_run_uses_the_weights_chosen_for_auto(options, content, style, tmp_path, monkeypatch):
    from tfstyle.network import weights

    asked = []
    real = weights.auto_weights
    monkeypatch.setattr(
        weights, "imagenet_weights", lambda network="vgg19": pytest.fail("loaded the ImageNet weights")
    )
    monkeypatch.setattr(
        weights, "auto_weights", lambda network="vgg19": asked.append(1) or weights.embedded_weights()
    )
    settings = {**options, "weights": "auto", "iterations": 2, "checkpoint": tmp_path, "resume": True}
    next(run := iterate(content, style, **settings))
    run.close()
    monkeypatch.setattr(weights, "auto_weights", real)  # it would load the ImageNet weights
    result = stylize(content, style, **settings)
    assert asked == [1]
    assert result.facts["weights"] == "embedded"
    assert result.config.weights == "auto"


def test_weights_given_after_auto_are_not_ignored(options, content, style, tmp_path, monkeypatch):
    """A resumed run takes the choice of the stored run only if the option is auto."""
    from tfstyle.network import weights

    monkeypatch.setattr(weights, "auto_weights", lambda network="vgg19": weights.embedded_weights())
    settings = {**options, "weights": "auto", "iterations": 2, "checkpoint": tmp_path}
    layers = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1")}
    next(run := iterate(content, style, **settings, **layers))
    run.close()
    with pytest.raises(ConfigError, match=r"other weights.*embedded.*small\.npz"):
        stylize(content, style, **{**settings, **layers, "weights": options["weights"], "resume": True})


# Which options and inputs may change before a run is resumed, and what is reported.

CHANGES = {
    "style_weight": ({"style_weight": 0.1}, r"style_weight was 1\.0, is 0\.1;"),
    "seed": ({"seed": 3}, r"seed was 0, is 3;"),
    "iterations": ({"iterations": 5}, r"iterations was 3, is 5;"),
    "two options": ({"clamp": False, "size": 30}, r"size was 32, is 30; clamp was True, is False;"),
    "precision": ({"precision": "float16"}, r"precision was 'auto', is 'float16';"),
    "init": ({"init": "noise"}, r"init was 'content', is 'noise';"),
    "content": ({"content": make_image(40, 56, seed=9)}, r"run: the content image is another"),
    "a style": (
        {"style": [make_image(48, 44, seed=3), make_image(50, 44, seed=9)]},
        r"run: style image 2 is another",
    ),
    "fewer styles": ({"style": make_image(48, 44, seed=3)}, r"run: style image 2 .*missing now;"),
    "more styles": (
        {"style": [make_image(48, 44, seed=s) for s in (3, 4, 5)]},
        r"run: style image 3 .*not before;",
    ),
    "keep": ({"masks": tfstyle.Masks(keep=np.eye(40, 56))}, r"run: content_mask .*not before;"),
    "adam's rate": ({"optimizer": tfstyle.adam(0.1)}, r"run: optimizer was lbfgs.* is adam\(0\.1, "),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_run_is_refused_with_the_differences(name, options, content, tmp_path):
    styles = [make_image(48, 44, seed=3), make_image(48, 44, seed=4)]
    next(run := iterate(content, styles, **options, checkpoint=tmp_path))
    run.close()
    changes, message = CHANGES[name]
    given = {"content": content, "style": styles, **options, **changes}
    before = [path.read_bytes() for path in files_of(tmp_path)]
    with pytest.raises(ConfigError, match=message) as caught:
        stylize(**given, checkpoint=tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))
    assert "leave out resume=True" in str(caught.value)
    assert "another folder" in str(caught.value)
    assert [path.read_bytes() for path in files_of(tmp_path)] == before


def test_other_weights_are_refused(options, content, style, small_weights, tmp_path):
    arrays = dict(small_weights.arrays)
    arrays["block1_conv1/bias"] = arrays["block1_conv1/bias"] + 1
    np.savez(tmp_path / "other.npz", **arrays)
    next(run := iterate(content, style, **options, checkpoint=tmp_path / "run"))
    run.close()
    settings = {**options, "checkpoint": tmp_path / "run", "resume": True}
    with pytest.raises(ConfigError, match=r"run: .*other weights.*small\.npz.*other\.npz"):
        stylize(content, style, **{**settings, "weights": str(tmp_path / "other.npz")})


def test_resuming_with_a_custom_encoder_and_extracted_styles(
    options, content, style, small_weights, tmp_path
):
    layers = ("conv1_1", "conv2_1", "conv2_2")
    extractor = tfstyle.StyleExtractor(
        layers, small_weights, padding="reflect", dtype="float32", pooling="avg"
    )
    extracted, other = (extractor.style(image, name="same") for image in (style, make_image(48, 44, seed=8)))
    encoder = Encoder(layers, small_weights, padding="reflect")
    options |= {"style_layers": layers, "content_layers": ("conv2_1",)}
    settings = {**options, "encoder": encoder, "checkpoint": tmp_path, "resume": True}
    whole = stylize(content, extracted, **options, encoder=encoder)
    next(run := iterate(content, extracted, **settings))
    run.close()
    with pytest.raises(ConfigError, match="run: style image 1 is another"):
        stylize(content, other, **settings)
    bfloat16 = Encoder(layers, small_weights, padding="reflect", dtype="bfloat16")
    with pytest.raises(ConfigError, match="run: dtype was float32, is bfloat16;"):
        stylize(content, extracted, **{**settings, "encoder": bfloat16})
    normalised = encoder.normalized([tf.constant(style[None])])
    with pytest.raises(ConfigError, match=r"\bsame\b.*weights.*small, normalized"):
        stylize(content, extracted, **{**settings, "encoder": normalised})
    assert_same(stylize(content, extracted, **settings), whole)


@pytest.mark.slow
def test_image_files_are_compared_by_their_contents(options, files, tmp_path):
    """Files may be moved. A mask, an initial image or a fine style may not change under the same name."""
    from PIL import Image

    def write_image(name, seed):
        Image.fromarray((make_image(40, 56, seed) * 255).astype(np.uint8)).save(files / name)
        return str(files / name)

    content, style = str(files / "content.png"), str(files / "style.png")
    paths = {
        "masks": (write_image("mask.png", 5),),
        "init": write_image("init.png", 6),
        "fine_style": write_image("fine.png", 7),
    }
    settings = {**options, **paths, "iterations": 2, "checkpoint": tmp_path / "run"}
    next(run := iterate(content, style, **settings))
    run.close()
    (files / "moved").mkdir()
    moved = {
        key: (shutil.copy(value[0], files / "moved"),)
        if key == "masks"
        else shutil.copy(value, files / "moved")
        for key, value in settings.items()
        if key in ("masks", "init", "fine_style", "weights")
    }
    resumed = {**settings, "resume": True}
    result = stylize(shutil.copy(content, files / "moved"), style, **{**resumed, **moved})
    assert len(result.history.total) == 4
    for name, message in {
        "mask.png": "run: mask 1 is another",
        "init.png": "run: the init image is another",
        "fine.png": "run: style image 1 is another",
    }.items():
        original = (files / name).read_bytes()
        write_image(name, 9)
        with pytest.raises(ConfigError, match=message):
            stylize(content, style, **resumed)
        (files / name).write_bytes(original)


def test_folders_that_cannot_be_used_are_refused(options, content, style, tmp_path, caplog):
    settings = {**options, "checkpoint": tmp_path / "run"}
    with pytest.raises(ConfigError, match=r"resume\b.*checkpoint=.DIR"):
        stylize(content, style, **options, resume=True)
    for every in (-1, math.nan, math.inf):
        with pytest.raises(ConfigError, match=rf"checkpoint_every is {every}.*at least 0"):
            stylize(content, style, **settings, checkpoint_every=every)
    whole = stylize(content, style, **settings, resume=True)
    assert "a new run starts" in caplog.text
    before = [path.read_bytes() for path in files_of(tmp_path / "run")]
    with pytest.raises(
        OutputError, match=r"/run\b.*checkpoints.*resume=True.*overwrite=True.*another folder"
    ):
        stylize(content, style, **settings)
    assert [path.read_bytes() for path in files_of(tmp_path / "run")] == before
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"folder.*/file\b"):
        stylize(content, style, **{**settings, "checkpoint": tmp_path / "file"})
    assert_same(stylize(content, style, **settings, resume=True), whole)


def test_overwriting_deletes_old_checkpoints_after_the_first_new_one(tmp_path):
    old = CheckpointFolder(tmp_path, every=0.0)
    for n in range(3):
        old.write(some_checkpoint(n))
    new = CheckpointFolder(tmp_path, every=0.0, overwrite=True)
    assert new.latest is None
    assert [read_checkpoint(path).about["n"] for path in files_of(tmp_path)] == [1, 2]
    new.write(some_checkpoint(10))
    assert [read_checkpoint(path).about["n"] for path in files_of(tmp_path)] == [10]


# The description of a run, without running it.


@pytest.fixture
def describe(small_encoder, monkeypatch):
    """A function that returns the dependencies of a run with small images and other options."""
    qualities = {"draft": {"iterations": 15}, "standard": {"iterations": 100}}
    monkeypatch.setattr("tfstyle.config.QUALITIES", qualities)
    layers = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1",)}

    def describe_with(encoder=small_encoder, content=0, **changes):
        config = StyleConfig(size=16, precision="float32", compile="eager", **layers).replace(changes)
        inputs = read_inputs(make_image(16, 16, content), make_image(16, 16, 1), config, digests=True)
        setup = make_setup(config, "/CPU:0", encoder=encoder, images=[inputs.content, *inputs.styles])
        return json.loads(json.dumps(dependencies(inputs, setup)))  # as a checkpoint stores it

    return describe_with


#: Options whose values do not matter to the result, and options whose files are compared by their contents.
FREE = {"quality", "weights", "max_pixels", "memory", "fine_style", "masks", "style_masks", "content_mask"}


def test_every_option_is_compared_unless_it_cannot_change_the_result(describe):
    names = {field.name for field in dataclasses.fields(StyleConfig)}
    assert names >= FREE
    assert set(describe()["options"]) == names - FREE


@pytest.mark.parametrize(
    "changes", [{"memory": 64.0}, {"max_pixels": 10**9}, {"weights": "other.npz"}], ids=str
)
def test_some_options_may_differ(describe, changes):
    assert differences(describe(), describe(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"iterations": 7}, ["iterations was 100, is 7"]),
        ({"quality": "draft", "iterations": 100}, []),
        ({"quality": "draft"}, ["iterations was 100, is 15"]),
        ({"style_layers": ("conv2_1",)}, ["style_layers was ['conv1_1'], is ['conv2_1']"]),
        (
            {"seed": 3, "clamp": False},
            ["clamp was True, is False", "seed was 0, is 3"],
        ),  # clamp changes the optimiser too
        ({"content": 5}, ["the content image is another image"]),
    ],
    ids=str,
)
def test_options_and_images_that_differ_are_named(describe, changes, expected):
    assert sorted(differences(describe(), describe(**changes))) == expected


def test_an_option_that_the_stored_run_did_not_have_counts_as_its_default(describe):
    stored = describe()
    del stored["options"]["tolerance"]
    assert differences(stored, describe()) == []
    assert differences(stored, describe(tolerance=0.1)) == ["tolerance was 0.0, is 0.1"]


def test_weights_are_compared_unless_they_differ_for_another_reason(describe, small_encoder, small_weights):
    arrays = {name: array + 1 for name, array in small_weights.arrays.items()}
    shifted = Encoder(
        small_encoder.layers, dataclasses.replace(small_weights, arrays=arrays, source="shifted")
    )
    (difference,) = differences(describe(), describe(encoder=shifted))
    assert re.search(r"other weights.*\bsmall\b.*\bshifted\b", difference)
    bfloat16 = Encoder(small_encoder.layers, small_weights, dtype="bfloat16")
    assert differences(describe(), describe(encoder=bfloat16)) == ["dtype was float32, is bfloat16"]
    # Normalised weights depend on the images.
    normalised = describe(normalize_weights=True), describe(normalize_weights=True, content=5)
    assert normalised[0]["encoder"]["arrays"] != normalised[1]["encoder"]["arrays"]
    assert differences(*normalised) == ["the content image is another image"]


@pytest.mark.parametrize(
    ("changes", "facts", "expected"),
    [
        ({}, {}, {"device": "cpu", "compile": "graph", "steps_per_call": 5, "precision": "bfloat16"}),
        ({"weights": "auto"}, {}, {"weights": "imagenet"}),
        ({"weights": "auto"}, {"weights": "embedded, normalized"}, {"weights": "embedded"}),
        ({}, {"device": "/GPU:1"}, {"device": "gpu:1"}),
    ],
)
def test_the_values_chosen_for_auto_are_values_of_the_options(changes, facts, expected):
    facts = {"device": "/CPU:0", "compile": "graph", "precision": "bfloat16", "weights": "imagenet", **facts}
    config = StyleConfig().replace(changes)
    chosen = chosen_options(config, facts, steps_per_call=5, custom_encoder=False)
    assert {name: chosen[name] for name in expected} == expected
    assert ("weights" in chosen) == ("weights" in changes)
    config.replace(chosen)  # raises no error
    assert set(chosen_options(config, facts, steps_per_call=5, custom_encoder=True)) == {
        "device", "compile", "steps_per_call",
    }  # fmt: skip


def test_a_resumed_run_gets_the_chosen_values_only_for_auto_and_none(tmp_path):
    chosen = {"device": "cpu", "compile": "graph", "precision": "bfloat16", "steps_per_call": 5}
    CheckpointFolder(tmp_path).write(Checkpoint({"scale": 1, "done": 1, "chosen": chosen}, {}))
    resumed = CheckpointFolder(tmp_path, resume=True)
    config = StyleConfig(compile="eager", precision="float32")
    assert resumed.pinned(config) == config.replace({"device": "cpu", "steps_per_call": 5})
    assert CheckpointFolder(tmp_path, overwrite=True).pinned(config) == config


def test_another_number_of_iterations_per_call_is_refused(tmp_path):
    about = {"depends": {"options": {}, "inputs": {}}, "versions": {}, "chosen": {"steps_per_call": 10}}
    encoder = {"dtype": "float32", "arrays": "", "weights": "small"}
    about["depends"] |= {"encoder": encoder, "normalised": False, "optimizer": "adam"}
    CheckpointFolder(tmp_path).write(Checkpoint({"scale": 1, "done": 1, **about}, {}))
    resumed = CheckpointFolder(tmp_path, resume=True)
    check_same_run(resumed, about)
    with pytest.raises(ConfigError, match=r"10 iterations.*save_every.*another folder"):
        check_same_run(resumed, {**about, "chosen": {"steps_per_call": 4}})


def position_of(optimizer, last_good=None):
    """Return a position after one step of the optimiser."""

    def evaluate(x):
        return {"total": tf.reduce_sum(x)}, tf.ones_like(x)

    image = tf.constant(np.random.default_rng(0).uniform(size=(1, 5, 7, 3)), tf.float32)
    image, state, _ = optimizer.step(evaluate, image, optimizer.init(image))
    return RunPosition(2, 3, False, image, state, last_good or (image, state))


@pytest.mark.parametrize("optimizer", [tfstyle.adam(), tfstyle.lbfgs(history=2)], ids=["adam", "lbfgs"])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_position_is_written_and_restored(optimizer, in_place, tmp_path):
    history = History()
    for scale, total in ((1, 9.0), (2, math.nan), (2, 4.0)):
        terms = {"total": total, "content": 1.0, "style": 2.0, "tv": 0.5, "style/conv1_1": 2.0}
        history.record(scale, terms, seconds=total)
    last_good = tf.fill([1, 5, 7, 3], 0.25), None
    position = position_of(optimizer, last_good)
    folder = CheckpointFolder(tmp_path, every=0.0)
    CheckpointWriter(folder, {}, optimizer=optimizer, history=history).reached(position)
    restored_history = History()
    checkpoint = CheckpointFolder(tmp_path, resume=True).latest
    restored = restore_run(checkpoint, optimizer, history=restored_history, in_place=in_place)
    assert (restored.scale, restored.done, restored.ended) == (2, 3, False)
    assert np.array_equal(restored.image, position.image)
    assert isinstance(restored.image, np.ndarray) == in_place
    leaves, expected = optimizer.flatten(restored.state), optimizer.flatten(position.state)
    assert all(np.array_equal(a, b) for a, b in zip(leaves, expected, strict=True))
    assert np.array_equal(restored.last_good[0], last_good[0])
    np.testing.assert_equal(vars(restored_history), vars(history))


def test_the_state_of_another_optimizer_is_refused(tmp_path):
    adam, lbfgs = tfstyle.adam(), tfstyle.lbfgs()
    folder = CheckpointFolder(tmp_path, every=0.0)
    CheckpointWriter(folder, {}, optimizer=adam, history=History()).reached(position_of(adam))
    checkpoint = CheckpointFolder(tmp_path, resume=True).latest
    with pytest.raises(ConfigError, match=r"another optimizer.*another folder"):
        restore_run(checkpoint, lbfgs, history=History(), in_place=False)


def test_checkpoints_are_written_when_due_at_the_end_of_scales_and_after_interruptions(tmp_path):
    """With a long interval only the end of a scale and an interruption write the last position."""
    adam = tfstyle.adam()
    position = position_of(adam)
    writer = CheckpointWriter(CheckpointFolder(tmp_path, every=1e9), {}, optimizer=adam, history=History())
    writer.reached(position)
    assert not files_of(tmp_path)
    writer.reached(position._replace(ended=True))
    assert len(files_of(tmp_path)) == 1
    writer.reached(position._replace(done=4))
    with pytest.raises(RuntimeError), writer.write_if_interrupted():
        raise RuntimeError
    assert len(files_of(tmp_path)) == 1
    with pytest.raises(KeyboardInterrupt), writer.write_if_interrupted():
        raise KeyboardInterrupt
    assert [read_checkpoint(path).about["done"] for path in files_of(tmp_path)] == [3, 4]
    writer.reached(position._replace(done=5))
    writer.forget()  # its arrays are about to change in place
    with pytest.raises(KeyboardInterrupt), writer.write_if_interrupted():
        raise KeyboardInterrupt
    assert [read_checkpoint(path).about["done"] for path in files_of(tmp_path)] == [3, 4]
    often = CheckpointFolder(tmp_path, every=0.0, overwrite=True)
    for done in (6, 7, 8):
        CheckpointWriter(often, {}, optimizer=adam, history=History()).reached(position._replace(done=done))
    assert [read_checkpoint(path).about["done"] for path in files_of(tmp_path)] == [7, 8]  # the last two


# Damaged files.


def some_checkpoint(n):
    generator = np.random.default_rng(n)
    arrays = {
        "image": generator.uniform(size=(1, 5, 7, 3)).astype(np.float32),
        "count": np.array(n, np.float32),
    }
    return Checkpoint({"n": n, "scale": 1, "done": n, "chosen": {}}, arrays)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def noise(path):
    path.write_bytes(np.random.default_rng(0).bytes(1000))


def folder_instead(path):
    path.unlink()
    path.mkdir()
    (path / "something").write_text("")


def without_about(path):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "about"}
    np.savez(path, **arrays)


DAMAGES = [cut, flip, empty, noise, folder_instead, without_about]


@pytest.mark.parametrize("damage", DAMAGES)
def test_after_a_damaged_checkpoint_the_one_before_is_used(damage, tmp_path, caplog):
    writing = CheckpointFolder(tmp_path, every=0.0)
    for n in range(1, 4):
        writing.write(some_checkpoint(n))
    previous, newest = files_of(tmp_path)
    damage(newest)
    resumed = CheckpointFolder(tmp_path, every=0.0, resume=True)
    assert resumed.latest.about["n"] == 2
    assert np.array_equal(resumed.latest.arrays["image"], some_checkpoint(2).arrays["image"])
    assert re.search(rf"{newest} is damaged \(.*{previous}: 2 iterations of scale 1", caplog.text, re.DOTALL)
    resumed.write(some_checkpoint(30))  # of the two older files the damaged one is deleted
    assert [read_checkpoint(path).about["n"] for path in files_of(tmp_path) if path.is_file()] == [2, 30]
    damage(files_of(tmp_path)[-1])
    assert CheckpointFolder(tmp_path, every=0.0, resume=True).latest.about["n"] == 2


def test_a_run_resumed_from_the_checkpoint_before_the_damaged_one(options, content, style, tmp_path):
    whole = stylize(content, style, **options)
    folder = {"checkpoint": tmp_path, "checkpoint_every": 0.0}
    for _ in zip(range(5), iterate(content, style, **options, **folder)):
        pass
    flip(files_of(tmp_path)[-1])
    assert_same(stylize(content, style, **options, **folder, resume=True), whole)


def test_if_all_checkpoints_are_damaged_the_run_starts_from_the_beginning(
    options, content, style, tmp_path, caplog
):
    whole = stylize(content, style, **options, checkpoint=tmp_path)
    for path in files_of(tmp_path):
        cut(path)
    assert_same(stylize(content, style, **options, checkpoint=tmp_path, resume=True), whole)
    assert caplog.text.count("is damaged") == 2
    assert "a new run starts" in caplog.text


def test_a_flipped_bit_is_detected_or_changes_nothing(tmp_path):
    CheckpointFolder(tmp_path, every=0.0).write(some_checkpoint(1))
    (path,) = files_of(tmp_path)
    whole = path.read_bytes()
    anywhere = np.random.default_rng(0).integers(0, 8 * len(whole), 600)
    directory = range(8 * whole.index(b"PK\1\2"), 8 * len(whole))
    detected = 0
    for position in [*anywhere, *directory]:
        data = bytearray(whole)
        data[position // 8] ^= 1 << position % 8
        path.write_bytes(data)
        try:
            checkpoint = read_checkpoint(path)
        except ValueError:
            detected += 1
            continue
        assert checkpoint.about == some_checkpoint(1).about
        assert digest(dict(checkpoint.arrays)) == digest(dict(some_checkpoint(1).arrays))
    assert detected > 1000  # the others are in dates and similar fields


def test_another_format_is_refused(tmp_path):
    CheckpointFolder(tmp_path, every=0.0).write(Checkpoint({"format": 2}, {}))
    with pytest.raises(ConfigError, match=r"000001\.npz has format 2\b.*\b3;.*another folder"):
        CheckpointFolder(tmp_path, every=0.0, resume=True)


def test_other_versions_of_the_libraries_are_warned_of(options, content, style, tmp_path, caplog):
    next(run := iterate(content, style, **options, checkpoint=tmp_path))
    run.close()
    (path,) = files_of(tmp_path)
    checkpoint = read_checkpoint(path)
    path.unlink()
    versions = {**checkpoint.about["versions"], "tensorflow": "1.15"}
    CheckpointFolder(tmp_path).write(
        Checkpoint({**checkpoint.about, "versions": versions}, checkpoint.arrays)
    )
    stylize(content, style, **options, checkpoint=tmp_path, resume=True)
    assert f"tensorflow 1.15, now {tf.__version__}" in caplog.text


def test_the_file_is_plain_numpy_and_json(options, content, style, tmp_path):
    result = stylize(content, style, **options, seed=7, checkpoint=tmp_path)
    with np.load(files_of(tmp_path)[-1], allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        assert all(file[name].dtype.kind in "fiuU" for name in file.files)
        assert np.array_equal(file["history/total"], result.history.total)
        assert np.array_equal(file["history/style_layers/conv1_1"], result.history.style_layers["conv1_1"])
        assert file["image"].shape == (1, 23, 32, 3)
    assert about["config"] == {**result.config.as_dict()}
    assert about["config"]["seed"] == 7
    assert set(about["depends"]["inputs"]) == {"the content image", "style image 1"}
    assert (about["scale"], about["done"], about["ended"]) == (2, 3, True)


# Disks that fail.


def test_a_full_disk_leaves_the_run_and_the_last_checkpoint_alone(
    options, content, style, tmp_path, caplog, monkeypatch
):
    whole = stylize(content, style, **options)
    sync, calls = os.fsync, []

    def full(handle):
        calls.append(1)
        if 6 < len(calls) < 9:  # a checkpoint makes two calls, for the file and its folder; the first fails
            raise OSError(28, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    seen = []
    result = stylize(
        content, style, **options, checkpoint=tmp_path, checkpoint_every=0.0,
        callback=lambda step: seen.append([read_checkpoint(p).about["done"] for p in files_of(tmp_path)]),
    )  # fmt: skip
    assert_same(result, whole)
    assert seen[:4] == [[1], [1, 2], [2, 3], [2, 3]]
    failures = re.findall("No space left on device.*the run goes on", caplog.text)
    assert len(failures) == 1  # the same failure is not logged at every iteration
    assert caplog.text.count(f"written again in {tmp_path}") == 1
    assert not list(tmp_path.glob(".tfstyle-*"))
    assert_same(stylize(content, style, **options, checkpoint=tmp_path, resume=True), whole)


def test_a_deleted_folder_is_made_again(options, content, style, tmp_path):
    folder = tmp_path / "a" / "run"
    whole = stylize(content, style, **options)

    def vanish(step):
        if (step.scale, step.iteration) == (1, 2):
            shutil.rmtree(tmp_path / "a")

    stylize(content, style, **options, checkpoint=folder, checkpoint_every=0.0, callback=vanish)
    assert_same(stylize(content, style, **options, checkpoint=folder, resume=True), whole)


def test_a_folder_replaced_by_a_file_is_warned_of(options, content, style, tmp_path, caplog):
    folder = tmp_path / "run"
    whole = stylize(content, style, **options)

    def vanish(step):
        if (step.scale, step.iteration) == (1, 2):
            shutil.rmtree(folder)
            folder.write_text("")

    assert_same(
        stylize(content, style, **options, checkpoint=folder, checkpoint_every=0.0, callback=vanish), whole
    )
    assert re.search(rf"no checkpoint .*{folder}.*the run goes on", caplog.text)


def test_a_read_only_folder_is_refused_at_once(options, content, style, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a superuser may write anywhere
    with pytest.raises(OutputError, match=f"no permission.*{tmp_path}"):
        stylize(content, style, **options, checkpoint=tmp_path)


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    """Only those of this machine's dead processes are removed, since another machine may be writing."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = re.sub(r"[^\w.]", "_", socket.gethostname())
    left = [f".tfstyle-{host}-{number}-1" for number in (dead.pid, os.getpid())]
    for name in [*left, ".tfstyle-another.machine-1-1"]:
        (tmp_path / name).write_bytes(b"half")
    CheckpointFolder(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [left[1], ".tfstyle-another.machine-1-1"]
    )


def test_digests_differ_with_values_types_and_shapes():
    zeros = np.zeros((2, 3), np.float32)
    others = [
        zeros.T,
        zeros.astype(np.float64),
        zeros + 1e-9,
        [zeros],
        {"a": zeros},
        None,
        "",
        0,
        [[], zeros],
    ]
    digests = [digest(other) for other in (zeros, *others)]
    assert len(set(digests)) == len(digests)
    assert digest(np.asfortranarray(zeros)) == digest(zeros)
    assert digest({"a": 1, "b": zeros}) == digest({"b": zeros.copy(), "a": 1})
    assert digest(tf.constant(zeros)) == digest(zeros)
    assert digest(np.float32(0.1)) == digest(np.array(0.1, np.float32))


@pytest.mark.parametrize(
    "value", [object(), len, {1, 2}, [lambda: 0], {"a": range(3)}, np.array([object()]), StyleConfig()]
)
def test_a_digest_of_an_address_is_refused(value):
    """The text of these values has an address or an arbitrary order, so that it differs between processes."""
    with pytest.raises(TypeError, match=r"type \w+ has no digest; use .*(numbers|arrays)"):
        digest(value)


def test_resuming_is_logged(options, content, style, tmp_path, caplog):
    next(run := iterate(content, style, **options, checkpoint=tmp_path))
    run.close()
    with caplog.at_level(logging.WARNING):
        stylize(content, style, **options, checkpoint=tmp_path, resume=True)
    assert "checkpoint-000001.npz: 1 iterations of scale 1" in caplog.text

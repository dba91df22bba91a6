"""Checkpoints: a run that goes on is the run that never stopped; what is damaged or another's is not used."""

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
from tests.conftest import make_picture
from tfstyle import Encoder, StyleConfig, iterate, stylize
from tfstyle.backend import KERAS_2
from tfstyle.errors import ConfigError, NotFiniteError, OutputError
from tfstyle.files import digest
from tfstyle.losses import LossNormalization, balanced_normalization
from tfstyle.optim import Optimizer, from_keras
from tfstyle.run import Checkpoint, CheckpointFolder, Run, read_checkpoint
from tfstyle.run.setup import LOSS_NORMALIZATIONS


@pytest.fixture
def options(small_file):
    """Of a run of two scales."""
    return {"size": 32, "min_scale": 16, "iterations": 3, "weights": str(small_file)}


def files_of(folder):
    return sorted(folder.glob("checkpoint-*.npz"))


def stored_on_the_way(run, folder, to):
    """Iterate over a run that stores all it can; copy each checkpoint into a folder of its own."""
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
    here, there = ({k: v for k, v in vars(r.history).items() if k != "seconds"} for r in (result, whole))
    assert here == there
    assert [type(v[0]) for v in here.values() if v == list(v)] == [
        type(v[0]) for v in there.values() if v == list(v)
    ]
    seconds = result.history.seconds
    assert len(seconds) == len(whole.history.seconds)
    assert seconds == sorted(seconds)


RUNS = {
    "adam": ({"optimizer": "adam"}, None),
    "adam, its state kept": ({"optimizer": "adam", "warm_start": True}, None),
    "adam, averaged": ({"optimizer": "adam", "ema_decay": 0.9, "warm_start": True}, None),
    "lbfgs": ({}, None),
    "lbfgs, averaged": ({"ema_decay": 0.5}, None),
    "lbfgs_fixed_step": ({"optimizer": "lbfgs_fixed_step", "lbfgs_history": 3}, None),
    "lbfgs, two steps in a call": ({"steps_per_call": 2}, None),
    "a noise start": ({"init": "noise", "seed": 5}, None),
    "bfloat16": ({"precision": "bfloat16"}, None),
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


@pytest.mark.parametrize("name", RUNS)
def test_from_every_iteration_a_run_goes_on_as_if_never_stopped(name, options, content, style, tmp_path):
    changes, optimizer = RUNS[name]
    config = StyleConfig().replace({**options, **changes})
    whole = Run(content, style, config, optimizer=optimizer and optimizer())
    assert sum(1 for _ in whole) == whole.total_iterations
    checkpoints = CheckpointFolder(tmp_path / "run", every=0.0)
    run = Run(content, style, config, setup=whole.setup, checkpoints=checkpoints)
    stored = stored_on_the_way(run, tmp_path / "run", tmp_path)
    assert_same(run.result(), whole.result())  # storing changes nothing
    calls = [n // run.steps_per_call for n in (scale.iterations for scale in whole.scales)]
    assert len(stored) == sum(calls) + len(calls)  # one after each call, one more at the end of each scale
    for folder in stored:
        checkpoints = CheckpointFolder(folder, every=1e9, resume=True)
        resumed = Run(content, style, config, setup=whole.setup, checkpoints=checkpoints)
        done = len(resumed.history.total)
        assert sum(1 for _ in resumed) == whole.total_iterations - done
        assert_same(resumed.result(), whole.result())


def test_a_tolerance_looks_back_across_the_break(options, content, style, tmp_path):
    config = StyleConfig().replace({**options, "iterations": 60, "tolerance": 0.5, "optimizer": "adam"})
    whole = Run(content, style, config)
    for _ in whole:
        pass
    counts = [whole.history.scale.count(scale) for scale in (1, 2)]
    assert all(10 < count < 60 for count in counts)  # or else it has not been tried
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


def test_a_run_interrupted_again_and_again(options, content, style, tmp_path):
    whole = stylize(content, style, **options)
    settings = {**options, "checkpoint": tmp_path / "run", "resume": True}
    for count in (1, 2, 2):  # 1; 2, 3; the second scale's 1, 2: nothing is done twice
        for n, _ in enumerate(iterate(content, style, **settings), 1):
            if n == count:
                break
    about = read_checkpoint(files_of(tmp_path / "run")[-1]).about
    assert (about["scale"], about["done"]) == (2, 2)
    assert_same(stylize(content, style, **settings), whole)
    assert_same(stylize(content, style, **settings, callback=lambda step: pytest.fail("it had ended")), whole)


def test_an_error_in_the_callback_or_ctrl_c_in_a_step_loses_nothing(options, content, style, tmp_path):
    """Ctrl-C may come anywhere; with an optimiser whose state is variables, when those have moved already."""

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
        raise RuntimeError("of the caller's")

    with pytest.raises(RuntimeError, match="of the caller's"):
        run(**folder, callback=fail)
    assert read_checkpoint(files_of(tmp_path / "run")[-1]).about["done"] == 3
    assert_same(run(**folder), whole)


def not_a_number_at(count):
    """Adam, whose picture is none from a step on."""
    adam = tfstyle.adam()

    def step(evaluate, x, state):
        x, state, terms = adam.step(evaluate, x, state)
        return tf.where(state.count >= count, math.nan, x), state, terms

    return adam._replace(step=step)


@pytest.mark.parametrize("bad", [3, 5, 8])
def test_a_run_that_fails_fails_with_the_same_picture(options, content, style, tmp_path, bad):
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
        again = Run(
            content,
            style,
            config,
            setup=whole.setup,
            checkpoints=CheckpointFolder(folder, resume=True),
        )
        with pytest.raises(NotFiniteError, match=str(expected.value)) as caught:
            list(again)
        assert np.array_equal(caught.value.result.image, expected.value.result.image)


def test_patience_is_counted_across_the_break(options, content, style, tmp_path, monkeypatch):
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
    assert len(caught.value.result.history.total) == 21  # as without a break


KERAS = [
    "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lion", "Nadam", "RMSprop", "SGD",
    pytest.param("Lamb", marks=pytest.mark.skipif(KERAS_2, reason="Keras 2.15 has no Lamb")),
]  # fmt: skip


@pytest.mark.parametrize("name", KERAS)
def test_the_state_of_every_keras_optimizer_goes_into_arrays_and_back(name):
    made = from_keras(getattr(keras.optimizers, name)(0.05))
    curve = tf.constant([[1.0, 3.0], [0.2, 5.0]])

    def evaluate(x):
        return {"total": tf.reduce_sum(curve * (x - 0.3) ** 2)}, 2 * curve * (x - 0.3)

    x, state = tf.constant([[0.9, 0.5], [0.1, 0.7]]), None
    state = made.init(x)
    for _ in range(4):
        x, state, _ = made.step(evaluate, x, state)
    middle, kept = x, made.flatten(state)
    for _ in range(4):
        x, state, _ = made.step(evaluate, x, state)
    again, other = middle, made.restore(made.init(middle), kept)
    for _ in range(4):
        again, other, _ = made.step(evaluate, again, other)
    assert np.array_equal(again, x)
    assert not np.array_equal(again, middle)


def test_a_state_of_ones_own_in_bfloat16(options, content, style, tmp_path):
    """NumPy's files have no name for that type."""

    def init(x):
        return {"velocity": tf.cast(tf.zeros_like(x), tf.bfloat16), "n": tf.constant(0)}

    def step(evaluate, x, state):
        terms, gradient = evaluate(x)
        velocity = state["velocity"] * tf.constant(0.9, tf.bfloat16) - tf.cast(0.5 * gradient, tf.bfloat16)
        moved = tf.clip_by_value(x + tf.cast(velocity, tf.float32), 0, 1)
        return moved, {"velocity": velocity, "n": state["n"] + 1}, terms

    own = Optimizer(init, step)
    whole = stylize(content, style, **options, optimizer=own)
    folder = {"checkpoint": tmp_path, "resume": True, "optimizer": own}
    for _ in zip(range(5), iterate(content, style, **options, **folder)):
        pass
    assert_same(stylize(content, style, **options, **folder), whole)


def test_what_auto_chose_is_used_again(options, content, style, tmp_path, monkeypatch):
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
    assert not np.array_equal(
        stylize(content, style, **options).image, whole.image
    )  # or it would prove nothing


def test_auto_weights_are_the_same_again(options, content, style, tmp_path, monkeypatch):
    from tfstyle.network import weights

    asked = []
    real = weights.auto_weights
    monkeypatch.setattr(
        weights, "imagenet_weights", lambda network="vgg19": pytest.fail("asked for ImageNet's")
    )
    monkeypatch.setattr(
        weights, "auto_weights", lambda network="vgg19": asked.append(1) or weights.embedded_weights()
    )
    settings = {**options, "weights": "auto", "iterations": 2, "checkpoint": tmp_path, "resume": True}
    next(run := iterate(content, style, **settings))
    run.close()
    monkeypatch.setattr(weights, "auto_weights", real)  # which now would find ImageNet's
    result = stylize(content, style, **settings)
    assert asked == [1]
    assert result.facts["weights"] == "embedded"
    assert result.config.weights == "auto"


def test_weights_given_after_auto_are_not_ignored(options, content, style, tmp_path, monkeypatch):
    """What auto chose is used again only while the option is auto."""
    from tfstyle.network import weights

    monkeypatch.setattr(weights, "auto_weights", lambda network="vgg19": weights.embedded_weights())
    settings = {**options, "weights": "auto", "iterations": 2, "checkpoint": tmp_path}
    layers = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1")}
    next(run := iterate(content, style, **settings, **layers))
    run.close()
    with pytest.raises(ConfigError, match="the encoder has other weights: embedded became small"):
        stylize(content, style, **{**settings, **layers, "weights": options["weights"], "resume": True})


# What may not change, what may, and what else is said.

CHANGES = {
    "content_weight": ({"content_weight": 0.1}, r"content_weight was 0\.04, is 0\.1;"),
    "seed": ({"seed": 3}, r"seed was 0, is 3;"),
    "iterations": ({"iterations": 5}, r"iterations was 3, is 5;"),
    "two options": ({"tv_weight": 0.0, "size": 30}, r"size was 32, is 30; tv_weight was 0\.3, is 0\.0;"),
    "precision": ({"precision": "float16"}, r"precision was 'auto', is 'float16';"),
    "init": ({"init": "noise"}, r"init was 'content', is 'noise';"),
    "content": ({"content": make_picture(40, 56, seed=9)}, r"run: the content image is another image;"),
    "a style": (
        {"style": [make_picture(48, 44, seed=3), make_picture(50, 44, seed=9)]},
        r"run: style image 2 is another image;",
    ),
    "fewer styles": ({"style": make_picture(48, 44, seed=3)}, r"run: style image 2 is missing;"),
    "more styles": (
        {"style": [make_picture(48, 44, seed=s) for s in (3, 4, 5)]},
        r"run: style image 3 is new;",
    ),
    "keep": ({"masks": tfstyle.Masks(keep=np.eye(40, 56))}, r"run: content_mask is new;"),
    "adam's rate": ({"optimizer": tfstyle.adam(0.1)}, r"run: optimizer was lbfgs.* is adam\(0\.1, "),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_run_is_refused_with_what_differs(name, options, content, tmp_path):
    styles = [make_picture(48, 44, seed=3), make_picture(48, 44, seed=4)]
    next(run := iterate(content, styles, **options, checkpoint=tmp_path))
    run.close()
    changes, message = CHANGES[name]
    given = {"content": content, "style": styles, **options, **changes}
    before = [path.read_bytes() for path in files_of(tmp_path)]
    with pytest.raises(ConfigError, match=message) as caught:
        stylize(**given, checkpoint=tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path} holds another run: ")
    assert [path.read_bytes() for path in files_of(tmp_path)] == before


def test_other_weights_are_refused(options, content, style, small_weights, tmp_path):
    arrays = dict(small_weights.arrays)
    arrays["block1_conv1/bias"] = arrays["block1_conv1/bias"] + 1
    np.savez(tmp_path / "other.npz", **arrays)
    next(run := iterate(content, style, **options, checkpoint=tmp_path / "run"))
    run.close()
    settings = {**options, "checkpoint": tmp_path / "run", "resume": True}
    with pytest.raises(
        ConfigError, match=r"run: the encoder has other weights: small\.npz became other\.npz;"
    ):
        stylize(content, style, **{**settings, "weights": str(tmp_path / "other.npz")})


def test_an_encoder_and_kept_styles_of_ones_own(options, content, style, small_weights, tmp_path):
    layers = ("conv1_1", "conv2_1", "conv2_2")
    extractor = tfstyle.StyleExtractor(
        layers, small_weights, padding="reflect", dtype="float32", pooling="avg"
    )
    kept, other = (extractor.style(picture, name="same") for picture in (style, make_picture(48, 44, seed=8)))
    encoder = Encoder(layers, small_weights, padding="reflect")
    options |= {"style_layers": layers, "content_layers": ("conv2_1",)}
    settings = {**options, "encoder": encoder, "checkpoint": tmp_path, "resume": True}
    whole = stylize(content, kept, **options, encoder=encoder)
    next(run := iterate(content, kept, **settings))
    run.close()
    with pytest.raises(ConfigError, match="run: style image 1 is another image;"):
        stylize(content, other, **settings)
    wider = Encoder(layers, small_weights, padding="reflect", dtype="bfloat16")
    with pytest.raises(ConfigError, match="run: dtype was float32, is bfloat16;"):
        stylize(content, kept, **{**settings, "encoder": wider})
    normalised = encoder.normalized([tf.constant(style[None])])
    with pytest.raises(ConfigError, match=r"extracted with other weights|the encoder has other weights"):
        stylize(content, kept, **{**settings, "encoder": normalised})
    assert_same(stylize(content, kept, **settings), whole)


@pytest.mark.slow
def test_pictures_are_compared_by_what_is_in_them(options, files, tmp_path):
    """Files may move; and a mask, a start or a fine style of the same name may not be another."""
    from PIL import Image

    def picture(name, seed):
        Image.fromarray((make_picture(40, 56, seed) * 255).astype(np.uint8)).save(files / name)
        return str(files / name)

    content, style = str(files / "content.png"), str(files / "style.png")
    named = {"masks": (picture("mask.png", 5),), "init": picture("init.png", 6), "iterations": 2}
    settings = {**options, **named, "fine_style": picture("fine.png", 7), "checkpoint": tmp_path / "run"}
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
    again = {**settings, "resume": True}
    result = stylize(shutil.copy(content, files / "moved"), style, **{**again, **moved})
    assert len(result.history.total) == 4
    for name, message in {
        "mask.png": "run: mask 1 is another image;",
        "init.png": "run: the start is another image;",
        "fine.png": "run: style image 1 is another image;",
    }.items():
        kept = (files / name).read_bytes()
        picture(name, 9)
        with pytest.raises(ConfigError, match=message):
            stylize(content, style, **again)
        (files / name).write_bytes(kept)


def test_a_folder_is_asked_for_what_it_holds(options, content, style, tmp_path, caplog):
    settings = {**options, "checkpoint": tmp_path / "run"}
    with pytest.raises(ConfigError, match="resume needs checkpoint"):
        stylize(content, style, **options, resume=True)
    for every in (-1, math.nan, math.inf):
        with pytest.raises(ConfigError, match="checkpoint_every is"):
            stylize(content, style, **settings, checkpoint_every=every)
    whole = stylize(content, style, **settings, resume=True)
    assert "starting from the beginning" in caplog.text
    before = [path.read_bytes() for path in files_of(tmp_path / "run")]
    with pytest.raises(OutputError, match=r"holds the checkpoints of a run: .*--resume .*--overwrite"):
        stylize(content, style, **settings)
    assert [path.read_bytes() for path in files_of(tmp_path / "run")] == before
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        stylize(content, style, **{**settings, "checkpoint": tmp_path / "file"})
    assert_same(stylize(content, style, **settings, resume=True), whole)


def test_overwriting_drops_the_old_only_when_the_new_is_there(tmp_path):
    old = CheckpointFolder(tmp_path, every=0.0)
    for n in range(3):
        old.write(some_checkpoint(n))
    new = CheckpointFolder(tmp_path, every=0.0, overwrite=True)
    assert new.latest is None
    assert [read_checkpoint(path).about["n"] for path in files_of(tmp_path)] == [1, 2]
    new.write(some_checkpoint(10))
    assert [read_checkpoint(path).about["n"] for path in files_of(tmp_path)] == [10]


# Damage.


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
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(damage, tmp_path, caplog):
    writing = CheckpointFolder(tmp_path, every=0.0)
    for n in range(1, 4):
        writing.write(some_checkpoint(n))
    one_before, newest = files_of(tmp_path)
    damage(newest)
    resumed = CheckpointFolder(tmp_path, every=0.0, resume=True)
    assert resumed.latest.about["n"] == 2
    assert np.array_equal(resumed.latest.arrays["image"], some_checkpoint(2).arrays["image"])
    assert f"{newest} is damaged (" in caplog.text
    assert f"going on from {one_before}" in caplog.text
    resumed.write(some_checkpoint(30))  # the good one before is kept, not the damaged one
    assert [read_checkpoint(path).about["n"] for path in files_of(tmp_path) if path.is_file()] == [2, 30]
    damage(files_of(tmp_path)[-1])
    assert CheckpointFolder(tmp_path, every=0.0, resume=True).latest.about["n"] == 2


def test_a_whole_run_from_the_one_before(options, content, style, tmp_path):
    whole = stylize(content, style, **options)
    folder = {"checkpoint": tmp_path, "checkpoint_every": 0.0}
    for _ in zip(range(5), iterate(content, style, **options, **folder)):
        pass
    flip(files_of(tmp_path)[-1])
    assert_same(stylize(content, style, **options, **folder, resume=True), whole)


def test_where_all_are_damaged_a_run_begins(options, content, style, tmp_path, caplog):
    whole = stylize(content, style, **options, checkpoint=tmp_path)
    for path in files_of(tmp_path):
        cut(path)
    assert_same(stylize(content, style, **options, checkpoint=tmp_path, resume=True), whole)
    assert caplog.text.count("is damaged") == 2
    assert "starting from the beginning" in caplog.text


def test_wherever_a_bit_is_flipped_it_is_noticed_or_harmless(tmp_path):
    CheckpointFolder(tmp_path, every=0.0).write(some_checkpoint(1))
    (path,) = files_of(tmp_path)
    whole = path.read_bytes()
    anywhere = np.random.default_rng(0).integers(0, 8 * len(whole), 600)
    directory = range(8 * whole.index(b"PK\1\2"), 8 * len(whole))
    noticed = 0
    for position in [*anywhere, *directory]:
        data = bytearray(whole)
        data[position // 8] ^= 1 << position % 8
        path.write_bytes(data)
        try:
            found = read_checkpoint(path)
        except ValueError:
            noticed += 1
            continue
        assert found.about == some_checkpoint(1).about
        assert digest(dict(found.arrays)) == digest(dict(some_checkpoint(1).arrays))
    assert noticed > 1000  # the rest are dates and the like


def test_a_later_format_is_not_taken_for_damage(tmp_path):
    CheckpointFolder(tmp_path, every=0.0).write(Checkpoint({"format": 3}, {}))
    with pytest.raises(ConfigError, match="format 3, and this tfstyle reads 2"):
        CheckpointFolder(tmp_path, every=0.0, resume=True)


def test_other_libraries_are_said(options, content, style, tmp_path, caplog):
    next(run := iterate(content, style, **options, checkpoint=tmp_path))
    run.close()
    (path,) = files_of(tmp_path)
    found = read_checkpoint(path)
    path.unlink()
    versions = {**found.about["versions"], "tensorflow": "1.15"}
    CheckpointFolder(tmp_path).write(Checkpoint({**found.about, "versions": versions}, found.arrays))
    stylize(content, style, **options, checkpoint=tmp_path, resume=True)
    assert f"the run began with tensorflow 1.15, now {tf.__version__}" in caplog.text


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
        if 6 < len(calls) < 9:  # of two calls to a checkpoint, the file and its folder, the first
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
    assert caplog.text.count("No space left on device; the run goes on") == 1  # not at every iteration
    assert caplog.text.count("checkpoints are written again") == 1
    assert not list(tmp_path.glob(".tfstyle-*"))
    assert_same(stylize(content, style, **options, checkpoint=tmp_path, resume=True), whole)


def test_a_folder_that_vanishes_is_made_again(options, content, style, tmp_path):
    folder = tmp_path / "a" / "run"
    whole = stylize(content, style, **options)

    def vanish(step):
        if (step.scale, step.iteration) == (1, 2):
            shutil.rmtree(tmp_path / "a")

    stylize(content, style, **options, checkpoint=folder, checkpoint_every=0.0, callback=vanish)
    assert_same(stylize(content, style, **options, checkpoint=folder, resume=True), whole)


def test_a_folder_that_becomes_a_file_is_warned_of(options, content, style, tmp_path, caplog):
    folder = tmp_path / "run"
    whole = stylize(content, style, **options)

    def vanish(step):
        if (step.scale, step.iteration) == (1, 2):
            shutil.rmtree(folder)
            folder.write_text("")

    assert_same(
        stylize(content, style, **options, checkpoint=folder, checkpoint_every=0.0, callback=vanish), whole
    )
    assert "no checkpoint: " in caplog.text
    assert "the run goes on" in caplog.text


def test_a_read_only_folder_is_refused_at_once(options, content, style, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a superuser may write anywhere
    with pytest.raises(OutputError, match="no permission to write in"):
        stylize(content, style, **options, checkpoint=tmp_path)


def test_temporary_files_of_killed_processes_are_removed(options, content, style, tmp_path):
    """Those of this machine's dead ones; another may be writing at this moment."""
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


def test_digests_tell_values_types_and_shapes_apart():
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


def test_going_on_is_logged(options, content, style, tmp_path, caplog):
    next(run := iterate(content, style, **options, checkpoint=tmp_path))
    run.close()
    with caplog.at_level(logging.WARNING):
        stylize(content, style, **options, checkpoint=tmp_path, resume=True)
    assert "checkpoint-000001.npz: scale 1, 1 iterations of it done" in caplog.text

"""Runs that are left early: image, history and metadata agree, however many iterations a call has."""

import numpy as np
import pytest

import tfstyle
from tests.conftest import make_image
from tfstyle import Masks, StyleConfig, iterate, stylize
from tfstyle.errors import ImageError, RunError
from tfstyle.run import Run, read_inputs


@pytest.fixture
def options(small_file):
    return {
        "weights": str(small_file),
        "size": 32,
        "scales": 1,
        "iterations": 20,
        "steps_per_call": 10,
        "compile": "eager",
        "precision": "float32",
        "content_layers": ("conv2_2",),
        "style_layers": ("conv1_1", "conv2_1"),
    }


@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "adam"}, {"optimizer": "lbfgs"}, {"optimizer": "adam", "ema_decay": 0.9}],
    ids=str,
)
def test_a_run_that_is_left_agrees_with_a_shorter_run(options, content, style, changes, tmp_path):
    """The expectation is a run of 10 iterations, which knows nothing of the other 10."""
    shorter = stylize(content, style, **{**options, **changes, "iterations": 10, "steps_per_call": 1})
    run = iterate(content, style, **options, **changes)
    step = next(run)
    result = run.result()
    assert (step.iteration, step.iterations) == (10, 20)
    assert step.losses["total"] == pytest.approx(shorter.history.total[-1], rel=1e-5)
    assert np.allclose(step.image, shorter.image, atol=1e-5)
    assert np.allclose(result.image, shorter.image, atol=1e-5)
    assert np.allclose(result.history.total, shorter.history.total, rtol=1e-5)
    assert result.history.iteration == list(range(1, 11))
    assert result.settings()["iterations"] == 10


def test_every_way_to_stop_gives_the_result_so_far(options, content, style):
    expected = stylize(content, style, **{**options, "iterations": 10}).image
    reported = []

    def stop_at_the_first_call(step):
        reported.append(step.iteration)
        return True

    by_answer = stylize(content, style, **options, callback=stop_at_the_first_call)
    by_method = stylize(content, style, **options, callback=lambda step: step.stop())
    assert reported == [10]
    by_iterator = iterate(content, style, **options)
    for step in by_iterator:
        step.stop()
    by_run = iterate(content, style, **options)
    for _ in by_run:
        by_run.stop()
    for result in (by_answer, by_method, by_iterator.result(), by_run.result()):
        assert len(result.history.total) == 10
        assert np.array_equal(result.image, expected)


def test_later_iterations_change_neither_a_result_nor_an_image(options, content, style):
    for changes in ({"optimizer": "lbfgs"}, {"optimizer": "adam"}, {"optimizer": "adam", "tile": "16"}):
        run = iterate(content, style, **{**options, **changes})
        step = next(run)
        done = step.iteration
        first, image = run.result(), step.image
        kept = first.image.copy()
        next(run)
        assert len(first.history.total) == first.settings()["iterations"] == done
        assert np.array_equal(first.image, kept)
        assert np.array_equal(image, kept)
        if changes == {"optimizer": "adam", "tile": "16"}:  # its image is updated in place
            with pytest.raises(RunError, match=r"image of iteration 1 was updated in place.*before the next"):
                _ = step.image
        else:
            assert np.array_equal(step.image, kept)


@pytest.mark.parametrize("answer", [None, False, 0, 1, "yes", np.bool_(False)])
def test_other_answers_of_a_callback_do_not_stop(options, content, style, answer):
    result = stylize(content, style, **options, callback=lambda step: answer)
    assert len(result.history.total) == 20


def test_a_run_has_a_result_at_any_time(options, content, style):
    run = iterate(content, style, **options, init="content")
    before = run.result()
    assert before.image.shape == (23, 32, 3)
    assert before.history.total == []
    next(run)
    assert len(run.result().history.total) == 10
    run.close()
    assert len(run.result().history.total) == 10
    assert list(run) == []


def test_a_run_stopped_at_an_early_scale_has_its_size(options, content, style):
    run = iterate(content, style, **{**options, "scales": 2, "scale_factor": 2.0})
    for step in run:
        step.stop()
    assert (step.scale, step.scales) == (1, 2)
    assert run.result().image.shape[:2] == step.shape == (12, 16)


@pytest.mark.parametrize("steps_per_call", [1, 5])
def test_a_stopped_run_is_resumed_where_it_stopped(options, content, style, tmp_path, steps_per_call):
    settings = {**options, "steps_per_call": steps_per_call, "scales": 2}
    whole = stylize(content, style, **settings)
    folder = {"checkpoint": tmp_path, "checkpoint_every": 1e9}
    first = stylize(content, style, **settings, **folder, callback=lambda step: step.iteration >= 15)
    assert len(first.history.total) == 15
    resumed = stylize(content, style, **settings, **folder, resume=True)
    assert np.array_equal(resumed.image, whole.image)
    assert resumed.history.total == whole.history.total


def test_a_mask_need_not_be_in_a_list(content, style, tmp_path):
    mask = np.zeros((10, 14), np.float32)
    mask[:, :7] = 1
    config = StyleConfig(size=32)
    expected = read_inputs(content, style, config, masks=[mask])
    tfstyle.images.save(tmp_path / "mask.png", tfstyle.images.ImageArray(np.repeat(mask[..., None], 3, -1)))
    for masks in (
        mask,
        Masks(mask),
        mask[None],
        str(tmp_path / "mask.png"),
        tmp_path / "mask.png",
        Masks((mask,)),
    ):
        inputs = read_inputs(content, style, config, masks=masks)
        assert np.array_equal(inputs.regions[0], expected.regions[0])
    named = read_inputs(content, style, config.replace(masks=str(tmp_path / "mask.png")))
    assert np.array_equal(named.regions[0], expected.regions[0])
    styled = read_inputs(content, style, config, masks=Masks(styles=make_image(8, 8)))
    assert len(styled.style_regions) == 1


@pytest.mark.parametrize("source", [None, 3, (image for image in ()), {"a"}], ids=lambda s: type(s).__name__)
def test_wrong_types_of_images_are_named(options, content, style, source):
    expected = rf"of type {type(source).__name__}; expected a path"
    with pytest.raises(ImageError, match=expected):
        stylize(source, style, **options)
    with pytest.raises(ImageError, match=expected):
        stylize(content, source, **options)
    if source is not None:
        with pytest.raises(ImageError, match=expected):
            stylize(content, style, **options, masks=source)


def test_the_choices_of_init_are_listed_before_an_image_is_read(options):
    with pytest.raises(
        tfstyle.errors.ConfigError, match=r"'contnet' \(did you mean 'content'\?\); it can be content, "
    ):
        stylize("missing.png", "missing.png", **options, init="contnet")


def test_sizes_by_area_keep_the_multiple_of_xla(options, small_file):
    """The root of the area of 128 x 192 pixels is 156.8: it must not be enlarged to 157."""
    config = StyleConfig().replace({**options, "size": 157, "size_of": "area", "enlarge": True})
    run = Run(make_image(128, 192), make_image(40, 40), config)
    assert run.inputs.shape == (128, 192)

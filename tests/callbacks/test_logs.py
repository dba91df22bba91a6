"""The logs for TensorBoard, read back from the event files."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.run.test_extra_losses import contrast
from tfstyle import StyleConfig, files
from tfstyle.callbacks import TensorBoard
from tfstyle.errors import ConfigError, OutputError


def read_logs(folder):
    """Return what a folder has: scalars, tag -> {step: value}; images, step -> array; texts, tag -> text."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    accumulator.Reload()
    scalars, images, texts = {}, {}, {}
    for tag in accumulator.Tags()["tensors"]:
        for event in accumulator.Tensors(tag):
            plugin = accumulator.SummaryMetadata(tag).plugin_data.plugin_name
            if plugin == "scalars":
                value = np.frombuffer(event.tensor_proto.tensor_content, np.float32)
                scalars.setdefault(tag, {})[event.step] = float((*value, *event.tensor_proto.float_val)[0])
            elif plugin == "images":
                _, _, png = event.tensor_proto.string_val
                images[event.step] = np.asarray(Image.open(io.BytesIO(png)), float)
            else:
                texts[tag] = event.tensor_proto.string_val[0].decode()
    return scalars, images, texts


def test_the_files_have_every_loss_the_images_and_the_options(paint, tmp_path):
    result = paint(callback=TensorBoard(tmp_path / "logs", every=3), extra_losses={"flat": (contrast, 0.5)})
    scalars, images, texts = read_logs(tmp_path / "logs")
    history = result.history
    expected = {
        **{f"loss/{name}": getattr(history, name) for name in ("total", "content", "style", "tv")},
        **{f"style/{layer}": values for layer, values in history.style_layers.items()},
        "extra/flat": history.extra_losses["flat"],
    }
    assert set(expected) <= set(scalars) <= {*expected, "loss/spectrum"}
    for tag, values in expected.items():
        assert list(scalars[tag]) == list(range(1, 9))
        np.testing.assert_allclose(list(scalars[tag].values()), values, rtol=1e-5)
    # Every third iteration, the ends of the two scales (4 and 8), and the end of the run.
    assert {step: image.shape for step, image in images.items()} == {
        3: (20, 28, 3), 4: (20, 28, 3), 6: (40, 56, 3), 8: (40, 56, 3),
    }  # fmt: skip
    assert np.abs(images[8] - result.image * 255).max() <= 0.5 + 1e-3
    options, facts = (json.loads(texts[name].strip("`json\n")) for name in ("options", "facts"))
    assert StyleConfig(**options) == result.config
    assert facts["content_layers"] == ["conv2_2"]


def test_a_scale_that_ends_early_and_an_early_end_have_their_last_images(paint, tmp_path):
    def stop(step):
        return step.global_iteration == 6

    paint(callback=[TensorBoard(tmp_path, every=100), stop])
    _, images, _ = read_logs(tmp_path)
    assert {step: image.shape for step, image in images.items()} == {4: (20, 28, 3), 6: (40, 56, 3)}
    settled = tmp_path / "settled"
    result = paint(callback=TensorBoard(settled, every=100), iterations=30, tolerance=0.9)
    ends = [history_end(result.history.scale, number) for number in (1, 2)]
    assert ends[0] < 30
    assert list(read_logs(settled)[1]) == ends


def history_end(scales, number):
    """Return the number of the last iteration of a scale."""
    return max(i for i, scale in enumerate(scales, 1) if scale == number)


def test_a_resumed_run_continues_the_steps(paint, tmp_path):
    options = {"checkpoint": tmp_path / "run", "checkpoint_every": 0}
    paint(**options, callback=[TensorBoard(tmp_path / "logs"), lambda step: step.global_iteration == 3])
    result = paint(**options, resume=True, callback=TensorBoard(tmp_path / "logs"))
    scalars, _, _ = read_logs(tmp_path / "logs")
    np.testing.assert_allclose(list(scalars["loss/total"].values()), result.history.total, rtol=1e-5)


def test_it_can_be_used_for_another_run(paint, tmp_path):
    logs = TensorBoard(tmp_path / "logs")
    paint(callback=logs)
    for path in (tmp_path / "logs").iterdir():
        path.unlink()
    paint(callback=logs)
    scalars, images, _ = read_logs(tmp_path / "logs")
    assert (len(scalars["loss/total"]), list(images)) == (8, [4, 8])


FULL = """
import resource, signal, sys, numpy as np, tfstyle
content, style = np.random.default_rng(0).random((2, 40, 56, 3))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
result = tfstyle.stylize(content, style, weights=sys.argv[1], size=56, scales=1, iterations=60,
    content_layers=["conv2_2"], style_layers=["conv1_1"], compile="eager",
    callback=tfstyle.callbacks.TensorBoard("logs", every=1))
print(len(result.history.total))
"""


def test_a_full_disk_does_not_lose_the_result(small_file, tmp_path):
    """A file may have at most 20 kB, as if the disk were full."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(small_file)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "60\n", done.stderr[-2000:]
    assert done.stderr.count("the logs in logs cannot be written") == 1


def test_wrong_arguments_are_refused_before_the_run(tmp_path, monkeypatch):
    for wrong in (0, 1.5, "x", None):
        with pytest.raises(ConfigError, match=rf"every is {wrong!r}; it must be an integer of at least 1"):
            TensorBoard(tmp_path, every=wrong)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot create the folder .*file"):
        TensorBoard(tmp_path / "file")
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"package tensorboard; install .* 'tfstyle\[tensorboard\]'"):
        TensorBoard(tmp_path / "logs")

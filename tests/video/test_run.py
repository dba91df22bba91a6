"""Runs of videos: the temporal loss, shots, passes, resuming, and what it works together with."""

import json
import threading

import numpy as np
import pytest
import tensorflow as tf

import tfstyle
from tests.video.clips import moving_object, pan, scene, still
from tests.video.files import read_video, write_clip
from tfstyle import StyleConfig
from tfstyle.errors import ConfigError, OutputError, RunError
from tfstyle.losses import Masks, TemporalTarget
from tfstyle.run import Run, make_setup, read_inputs
from tfstyle.video import Selection, VideoOptions, VideoRun, iterate, motions, open_clip, stylize
from tfstyle.video.motion import Ahead
from tfstyle.video.store import FrameStore

SHAPE = (36, 48)


@pytest.fixture(scope="module")
def options(small_file):
    """Options of a short video; eager, because tracing takes most of the time of so small a run."""
    return {"size": 48, "min_scale": 24, "iterations": 3, "compile": "eager", "weights": str(small_file)}


@pytest.fixture(scope="module")
def two_shots():
    """Four frames of a pan, and four of another scene."""
    return np.concatenate([pan(4, SHAPE, (1.3, 0.4)).frames, moving_object(4, SHAPE).frames[..., ::-1]])


STYLE = scene(40, 52, 9)


def painted(frames, options, style=STYLE, stop_after=None, **arguments):
    """Return the finished frames and the result of a video, which is stopped after some steps."""
    images = []
    arguments.setdefault("video", VideoOptions(frame_iterations=2))
    with iterate(frames, style, **options, **arguments) as steps:
        for step in steps:
            if step.frame_done:
                images.append(step.image)
            if len(images) == stop_after:
                break
    return np.array(images), steps.result()


class TestLoss:
    @pytest.fixture(scope="class")
    def case(self, small_file):
        config = StyleConfig(weights=str(small_file), size=64, compile="eager", precision="float32")
        content, style = scene(64, 64, 1), scene(64, 64, 2)
        inputs = read_inputs(content, style, config)
        setup = make_setup(config, "/CPU:0")
        summary = setup.objective.style_summary(tf.constant(style[None]))
        targets = setup.objective.targets(tf.constant(content[None]), [summary])
        generator = np.random.default_rng(0)
        reference = generator.random((1, 64, 64, 3), np.float32)
        weights = generator.random((1, 64, 64, 1), np.float32)
        target = TemporalTarget(tf.constant(0.7), tf.constant(reference), tf.constant(weights))
        return setup, inputs, targets, target

    def test_the_term_is_added_to_the_total(self, case):
        setup, inputs, targets, target = case
        image = tf.constant(inputs.content.rgb[None])
        without = setup.objective(image, targets)
        terms = setup.objective(image, targets._replace(temporal=(target,)))
        difference = inputs.content.rgb[None] - target.reference.numpy()
        expected = 0.7 * np.mean(target.consistency.numpy() * difference.astype(np.float64) ** 2)
        assert float(terms["temporal"]) == pytest.approx(expected, rel=1e-5)
        assert float(terms["total"] - without["total"]) == pytest.approx(expected, rel=1e-3)

    def test_tiles_give_the_same_loss_and_gradient(self, case):
        setup, inputs, targets, target = case
        image = np.random.default_rng(1).random((1, 64, 64, 3), np.float32)
        whole_targets = targets._replace(temporal=(target,))
        with tf.GradientTape() as tape:
            x = tf.constant(image)
            tape.watch(x)
            terms = setup.objective(x, whole_targets)
        gradient = tape.gradient(terms["total"], x).numpy()
        tiled = setup.tiled_objective((32, 32))
        summary = tiled.style_summary(scene(64, 64, 2)[None])
        tiled_targets = tiled.targets(inputs.content.rgb[None], [summary])._replace(
            temporal=(TemporalTarget(*(np.asarray(part) for part in target)),)
        )
        tiled_terms, tiled_gradient = tiled.value_and_gradient(image, tiled_targets)
        assert float(tiled_terms["temporal"]) == pytest.approx(float(terms["temporal"]), rel=1e-5)
        assert np.linalg.norm(tiled_gradient - gradient) < 1e-4 * np.linalg.norm(gradient)

    @pytest.mark.parametrize("normalization", ["balanced", "paper", "mean"])
    def test_the_unit_of_its_weight_is_the_style_loss_without_features(self, small_file, normalization):
        config = StyleConfig(
            weights=str(small_file), size=32, compile="eager", style_weight=3.0, precision="float32",
            loss_normalization=normalization, style_losses=("gram",),
        )  # fmt: skip
        run = Run(scene(32, 32, 1), scene(32, 32, 2), config)
        targets = run._targets.compute(run.scales[-1], run.layouts[-1])
        expected = 0.0
        for layer, weight in run.setup.objective.style_layers.items():
            gram = np.asarray(targets.styles[0][layer][0], np.float64)[0]
            channels = len(gram)
            energy = {
                "balanced": 1.0,
                "paper": (gram**2).sum() / (4 * channels**2),
                "mean": (gram**2).mean(),
            }[normalization]
            expected += 3.0 * weight * energy
        assert run.blank_style_loss() == pytest.approx(expected, rel=1e-3)


class TestFrames:
    def test_the_first_frame_is_that_of_stylize(self, options):
        frames = pan(2, SHAPE).frames
        images, result = painted(frames, options)
        single = tfstyle.stylize(frames[0], STYLE, **options)
        assert np.allclose(images[0], single.image, atol=1e-4)  # results of frames have 16 bits
        assert [record.iterations for record in result.records] == [6, 2]
        assert [record.begins_shot for record in result.records] == [True, False]

    def test_a_frame_follows_the_motion_of_the_clip(self, options):
        clip = pan(3, SHAPE, (3.0, 1.0))
        video = VideoOptions(frame_iterations=8, temporal_weight=1e4)
        images, result = painted(clip.frames, options, video=video)
        moved = images[1][:-1, :-3] - images[0][1:, 3:]
        fixed = images[1] - images[0]
        inner = slice(6, -6), slice(6, -6)
        assert np.abs(moved[inner]).mean() < 0.3 * np.abs(fixed[inner]).mean()
        assert result.warping_error == pytest.approx(
            np.mean([record.warping_error for record in result.records[1:]])
        )
        assert result.records[0].warping_error is None

    def test_without_temporal_weight_frames_differ_more(self, options):
        frames = still(4, SHAPE).frames + np.random.default_rng(0).normal(size=(4, *SHAPE, 3)) * 0.01
        frames = np.clip(frames, 0, 1).astype(np.float32)
        videos = [VideoOptions(frame_iterations=12, temporal_weight=weight) for weight in (0.0, 1e3)]
        errors = [painted(frames, options, video=video)[1].warping_error for video in videos]
        assert errors[1] < 0.7 * errors[0]

    def test_without_flow_a_frame_is_compared_with_the_difference_of_the_sources(self, options):
        frames = np.stack([np.full((*SHAPE, 3), value, np.float32) for value in (0.4, 0.5)])
        video = VideoOptions(frame_iterations=8, temporal_weight=1e5, flow="off")
        images, result = painted(frames, options, video=video)
        assert np.abs(images[1] - images[0] - 0.1).mean() < 0.01
        assert result.warping_error is None

    def test_fast_frames_end_when_the_loss_hardly_falls(self, options):
        frames = still(3, SHAPE).frames
        video = VideoOptions(frame_iterations=60, fast=True)
        _, result = painted(frames, {**options, "iterations": 30}, video=video)
        assert 3 < result.records[-1].iterations < 60

    def test_odd_sides_are_made_even(self, options):
        images, _ = painted(pan(2, (35, 49)).frames, options)
        assert images.shape == (2, 34, 48, 3)

    def test_the_step_is_traced_once(self, small_file):
        options = {
            "size": 48,
            "min_scale": 24,
            "iterations": 2,
            "weights": str(small_file),
            "compile": "graph",
        }
        with iterate(pan(4, SHAPE).frames, STYLE, **options, video=VideoOptions(frame_iterations=2)) as steps:
            for _ in steps:
                pass
        (step,) = steps.run._setup.steps.values()
        assert step.experimental_get_tracing_count() == 1


class TestShots:
    @pytest.mark.parametrize("flow", ["dis", "off"])
    def test_a_cut_begins_anew(self, options, two_shots, flow):
        images, result = painted(two_shots, options, video=VideoOptions(frame_iterations=2, flow=flow))
        assert [record.frame for record in result.records if record.begins_shot] == [1, 5]
        single = tfstyle.stylize(two_shots[4], STYLE, **options)
        assert np.allclose(images[4], single.image, atol=1e-4)

    def test_frames_are_not_compared_across_a_cut(self, two_shots):
        frames = open_clip(two_shots).frames()
        found = [motion for _, motion in motions(frames, memory=(1, 3), use_flow=True)]
        assert [sorted(motion.flows) for motion in found] == [[], [1], [1], [1, 3], [], [1], [1], [1, 3]]

    def test_weights_of_farther_frames_are_those_that_nearer_ones_leave(self):
        clip = moving_object(6, (72, 96), step=(4.0, 0.0))
        *_, (_, motion) = motions(open_clip(clip.frames).frames(), memory=(1, 4), use_flow=True)
        near, far = motion.consistency[1], motion.consistency[4]
        assert (near + far).max() <= 1 + 1e-6
        assert far[near == 1].max() == 0
        assert far.min() >= 0


class TestPasses:
    def test_frames_are_painted_forwards_and_backwards(self, options, two_shots, tmp_path):
        video = VideoOptions(frame_iterations=2, passes=2)
        _, result = painted(two_shots, options, video=video, output=tmp_path / "out.mkv")
        order = [(record.pass_number, record.frame) for record in result.records]
        assert order == [(1, n) for n in range(1, 9)] + [(2, n) for n in range(8, 0, -1)]
        assert [r.frame for r in result.records if r.pass_number == 2 and r.begins_shot] == [8, 4]
        assert len(read_video(tmp_path / "out.mkv")[0]) == 8
        assert result.frames == 8

    def test_the_last_pass_is_delivered_in_order(self, options, two_shots, tmp_path):
        video = VideoOptions(frame_iterations=2, passes=2)
        images, _ = painted(two_shots, options, video=video, save_frames=tmp_path)
        files = [tfstyle.images.load(path).rgb for path in sorted(tmp_path.glob("frame-*.png"))]
        assert np.allclose(files, images[8:][::-1], atol=0.6 / 255)

    def test_a_video_that_is_stopped_in_its_second_pass_has_all_frames(self, options, two_shots, tmp_path):
        video = VideoOptions(frame_iterations=2, passes=2)
        _, result = painted(two_shots, options, video=video, stop_after=10, output=tmp_path / "out.mp4")
        assert result.frames == 8
        assert len(read_video(tmp_path / "out.mp4")[0]) == 8

    def test_a_video_that_is_stopped_in_a_frame_of_its_first_pass_lacks_that_frame(self, options, two_shots):
        video = VideoOptions(frame_iterations=2, passes=2)
        steps = tfstyle.video.iterate(two_shots, STYLE, tfstyle.StyleConfig(**options), video=video)
        with steps:
            for step in steps:
                if step.frame == 3:  # before it is done
                    step.stop()
        assert steps.result().frames == 2


class TestResume:
    @pytest.mark.parametrize(
        ("changes", "video", "stops"),
        [
            ({}, {}, (3, 5)),
            ({"optimizer": "adam"}, {"memory_frames": (1, 3)}, (4, 7)),
            ({"color": "cholesky"}, {"flow": "off"}, (6,)),
            ({"color": "luminance"}, {"passes": 3}, (5, 11, 20)),
        ],
    )
    def test_a_resumed_video_has_the_same_frames(self, options, two_shots, tmp_path, changes, video, stops):
        options = {**options, **changes}
        video = VideoOptions(**{"frame_iterations": 2, **video})
        painted(two_shots, options, video=video, save_frames=tmp_path / "whole")
        resumed = {"video": video, "checkpoint": tmp_path / "checkpoint", "resume": True}
        for stop in stops:
            before, _ = painted(two_shots, options, stop_after=stop, **resumed)
            assert len(before) <= stop
        _, result = painted(
            two_shots, options, **resumed, save_frames=tmp_path / "resumed", output=tmp_path / "out.mkv"
        )
        assert len(result.records) == 8 * video.passes
        for number in range(1, 9):
            files = [tmp_path / name / f"frame-{number:06d}.png" for name in ("whole", "resumed")]
            images = [tfstyle.images.load(file).rgb for file in files]
            assert np.array_equal(*images), f"frame {number}"
        assert len(read_video(tmp_path / "out.mkv")[0]) == 8

    def test_another_video_is_refused(self, options, two_shots, tmp_path):
        painted(two_shots, options, checkpoint=tmp_path / "c", stop_after=2)
        again = {"checkpoint": tmp_path / "c", "resume": True, "stop_after": 1}
        with pytest.raises(ConfigError, match=r"holds another video: style_weight was 1\.0, is 2\.0"):
            painted(two_shots, {**options, "style_weight": 2.0}, **again)
        with pytest.raises(ConfigError, match="passes was 1, is 2"):
            painted(two_shots, options, **again, video=VideoOptions(frame_iterations=2, passes=2))
        with pytest.raises(ConfigError, match="the content image is another image"):
            painted(two_shots[1:], options, **again)
        with pytest.raises(ConfigError, match=r"every was 1, is 2"):
            painted(two_shots, options, **again, selection=Selection(every=2))
        with pytest.raises(OutputError, match="holds the frames of a video"):
            painted(two_shots, options, checkpoint=tmp_path / "c")
        painted(two_shots, options, checkpoint=tmp_path / "c", overwrite=True, stop_after=1)
        assert json.loads((tmp_path / "c" / "state.json").read_text())["done"] == 1

    def test_changed_images_are_refused(self, options, two_shots, tmp_path):
        painted(two_shots, options, checkpoint=tmp_path / "c", stop_after=2)
        changed = two_shots.copy()
        changed[5] += 0.01
        with pytest.raises(ConfigError, match="clip is another one"):
            painted(np.clip(changed, 0, 1), options, checkpoint=tmp_path / "c", resume=True)

    def test_a_foreign_state_is_one_line(self, tmp_path, options, two_shots):
        (tmp_path / "c").mkdir()
        for text in ('{"format": 2}', '{"format": 9}', "[]", '{"format": 2, "pass": "x"}'):
            (tmp_path / "c" / "state.json").write_text(text)
            with pytest.raises(ConfigError, match=r"state\.json"):
                painted(two_shots, options, checkpoint=tmp_path / "c", resume=True)

    def test_resume_without_a_video_replaces_no_file(self, options, two_shots, tmp_path):
        (tmp_path / "out.mp4").write_bytes(b"mine")
        with pytest.raises(OutputError, match="exists"):
            painted(two_shots, options, checkpoint=tmp_path / "c", resume=True, output=tmp_path / "out.mp4")
        assert (tmp_path / "out.mp4").read_bytes() == b"mine"

    def test_a_wrong_option_does_not_delete_the_video_that_it_would_replace(
        self, options, two_shots, tmp_path
    ):
        painted(two_shots, options, checkpoint=tmp_path / "c", stop_after=2)
        with pytest.raises(ConfigError):
            painted(two_shots, {**options, "style_blend": (1, 2)}, checkpoint=tmp_path / "c", overwrite=True)
        assert (tmp_path / "c" / "pass-1-frame-000001.npy").is_file()

    def test_another_file_is_refused(self, options, two_shots, tmp_path):
        first = write_clip(tmp_path / "first.mp4", two_shots)
        other = write_clip(tmp_path / "other.mp4", np.concatenate([two_shots[:4], two_shots[:4]]))
        painted(first, options, checkpoint=tmp_path / "c", stop_after=1)
        with pytest.raises(ConfigError, match="clip is another one"):
            painted(other, options, checkpoint=tmp_path / "c", resume=True)

    def test_a_damaged_folder_is_one_line(self, options, two_shots, tmp_path):
        painted(two_shots, options, checkpoint=tmp_path / "c", stop_after=2)
        (tmp_path / "c" / "pass-1-frame-000001.npy").write_bytes(b"damaged")
        with pytest.raises(RunError, match=r"pass-1-frame-000001\.npy is missing or damaged"):
            painted(two_shots, options, checkpoint=tmp_path / "c", resume=True)
        (tmp_path / "c" / "state.json").write_text("{")
        with pytest.raises(ConfigError, match=r"state\.json cannot be read"):
            painted(two_shots, options, checkpoint=tmp_path / "c", resume=True)


class TestTogether:
    @pytest.mark.parametrize(
        "changes",
        [
            {"color": "content_chroma"},
            {"color": "transport_result"},
            {"color": "root"},
            {"optimizer": "adam", "ema_decay": 0.9},
            {"style_losses": ("wasserstein",)},
            {"content_loss": ("self_similarity",)},
            {"preset": "neural-style-pt"},
            {"quality": "draft", "iterations": None},
        ],
    )
    def test_options_of_images_work_for_videos(self, options, changes):
        options = {**options, **changes}
        preset = options.pop("preset", None)
        options = {name: value for name, value in options.items() if value is not None}
        config = StyleConfig() if preset is None else tfstyle.preset(preset)
        with iterate(
            moving_object(3, SHAPE).frames, STYLE, config, **options, video=VideoOptions(frame_iterations=2)
        ) as steps:
            images = [step.image for step in steps if step.frame_done]
        assert len(images) == 3
        assert np.isfinite(images).all()
        assert images[-1].std() > 0.01

    def test_tiles_give_nearly_the_same_frames(self, small_file):
        options = {
            "weights": str(small_file), "size": 96, "iterations": 2, "scales": 1, "precision": "float32",
            "optimizer": "adam", "epsilon": 1e-2, "compile": "graph",
        }  # fmt: skip
        frames = pan(3, (64, 96)).frames
        whole, _ = painted(frames, options)
        tiled, _ = painted(frames, {**options, "tile": 32})
        assert np.abs(whole - tiled).mean() < 2e-4

    def test_a_region_that_is_kept_shows_the_clip(self, options, tmp_path):
        clip = pan(3, SHAPE)
        keep = np.zeros(SHAPE, np.float32)
        keep[:, :24] = 1
        images, _ = painted(clip.frames, options, masks=Masks(keep=keep))
        assert np.allclose(images[:, :, :20], clip.frames[:, :, :20], atol=1e-4)
        assert np.abs(images[:, :, 30:] - clip.frames[:, :, 30:]).mean() > 0.01

    def test_what_leaves_a_region_that_is_kept_is_stylised(self, options):
        clip = pan(6, SHAPE, (-3.0, 0.0))  # the content moves to the right, out of the region
        keep = np.zeros(SHAPE, np.float32)
        keep[:, :20] = 1
        video = VideoOptions(frame_iterations=4)
        kept, free = (
            painted(clip.frames, {**options, "iterations": 8}, video=video, masks=masks)[0][-1]
            for masks in (Masks(keep=keep), None)
        )
        left_region = slice(None), slice(24, 32)
        change = [np.abs(image[left_region] - clip.frames[-1][left_region]).mean() for image in (kept, free)]
        assert change[0] > 0.5 * change[1]

    def test_each_region_has_its_style(self, options):
        mask = np.zeros(SHAPE, np.float32)
        mask[:, :24] = 1
        frames, other = pan(3, SHAPE).frames, scene(44, 40, 11)
        images, swapped, exchanged = (
            painted(frames, options, style=styles, masks=masks)[0]
            for styles, masks in (
                ([STYLE, other], [mask, 1 - mask]),
                ([other, STYLE], [1 - mask, mask]),
                ([STYLE, other], [1 - mask, mask]),
            )
        )
        assert np.abs(images - swapped).mean() < 1e-3
        assert np.abs(images - exchanged).mean() > 1e-2

    def test_the_style_keeps_its_colours_while_the_clip_changes_its_own(self, small_file):
        config = StyleConfig(weights=str(small_file), size=48, color="cholesky")
        frames = pan(2, SHAPE).frames
        first = read_inputs(frames[0], STYLE, config)
        later = first.for_frame(tfstyle.images.ImageArray(frames[1] * 0.5))
        assert later.styles is first.styles
        assert np.array_equal(later.content.rgb, frames[1] * 0.5)

    def test_saved_frames_store_the_options(self, options, tmp_path):
        painted(pan(2, SHAPE).frames, {**options, "style_weight": 2.0}, save_frames=tmp_path / "frames")
        stored = tfstyle.images.read_settings(tmp_path / "frames" / "frame-000002.png")
        assert stored["options"]["style_weight"] == 2.0

    def test_colours_of_the_clip_are_kept(self, options):
        frames = pan(3, SHAPE).frames
        images, _ = painted(frames, {**options, "color": "luminance"})
        difference = images - frames  # the chroma is that of the frame: all channels differ alike
        inside = (images > 0.02) & (images < 0.98)
        spread = np.ptp(difference, axis=-1)[inside.all(-1)]
        assert np.median(spread) < 0.01


class TestEnds:
    def test_ctrl_c_leaves_a_file_with_the_frames_so_far(self, options, tmp_path):
        steps = iterate(
            pan(6, SHAPE).frames, STYLE, **options,
            output=tmp_path / "out.mp4", video=VideoOptions(frame_iterations=2),
        )  # fmt: skip

        def interrupted():
            with steps:
                for step in steps:
                    if step.frame == 4 and not step.frame_done:
                        raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert len(read_video(tmp_path / "out.mp4")[0]) == 3
        assert steps.result().frames == 3
        assert threading.active_count() < 20

    def test_a_callback_can_end_the_video(self, options, tmp_path):
        texts = []
        result = stylize(
            pan(6, SHAPE).frames, STYLE, output=tmp_path / "out.mp4", video=VideoOptions(frame_iterations=2),
            callback=[lambda step: texts.append(step.text), lambda step: step.frame_done and step.frame == 2],
            **options,
        )  # fmt: skip
        assert (result.frames, result.expected) == (2, 6)
        assert texts[0] == "frame 1 of 6, iteration 1 of 6, estimating the time left"
        assert texts[-1].startswith("frame 2 of 6 done, ")
        assert "warping error" in texts[-1]

    def test_a_run_that_fails_keeps_the_frames_before(self, options, tmp_path, monkeypatch):
        made = []

        def fails(run, *arguments):
            if len(made) == 3:
                raise RunError("out of memory")
            made.append(make_run(run, *arguments))
            return made[-1]

        make_run = VideoRun._make_run
        monkeypatch.setattr(VideoRun, "_make_run", fails)
        steps = iterate(
            pan(6, SHAPE).frames, STYLE, **options,
            output=tmp_path / "out.mp4", video=VideoOptions(frame_iterations=2),
        )  # fmt: skip
        with steps, pytest.raises(RunError, match="out of memory"):
            for _ in steps:
                pass
        assert len(read_video(tmp_path / "out.mp4")[0]) == 3

    def test_the_notes_of_a_damaged_clip_are_in_the_result(self, options, tmp_path):
        frames = [scene(*SHAPE, 1)] * 12
        path = write_clip(tmp_path / "clip.mkv", frames, options={"g": "1"})
        with open(path, "r+b") as file:
            file.truncate(file.seek(0, 2) // 2)
        result = stylize(
            path, STYLE, output=tmp_path / "out.mp4", video=VideoOptions(frame_iterations=1), **options
        )
        assert 3 <= result.frames <= 7
        assert any("cut off or damaged" in note for note in result.notes)

    def test_the_history_is_a_file(self, options, tmp_path):
        _, result = painted(pan(2, SHAPE).frames, options)
        result.save_history(tmp_path / "history.json")
        history = json.loads((tmp_path / "history.json").read_text())
        assert [frame["frame"] for frame in history["frames"]] == [1, 2]
        assert history["frames"][0]["warping_error"] is None

    def test_the_output_is_not_the_clip(self, options, tmp_path):
        path = write_clip(tmp_path / "clip.mp4", pan(2, SHAPE).frames)
        with pytest.raises(ConfigError, match="the output would replace the input"):
            stylize(path, STYLE, output=path, overwrite=True, **options)
        part = write_clip(tmp_path / "other.part.mp4", pan(2, SHAPE).frames)
        with pytest.raises(ConfigError, match="the output would replace the input"):
            stylize(part, STYLE, output=tmp_path / "other.mp4", **options)
        images = tmp_path / "images"
        painted(pan(2, SHAPE).frames, options, save_frames=images)
        with pytest.raises(ConfigError, match="save_frames is the folder of the input"):
            stylize(images, STYLE, output=tmp_path / "x.mp4", save_frames=images, overwrite=True, **options)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"video": {"passes": 2}}, "video is a dict"),
            ({"selection": (0, 1)}, "selection is a tuple"),
            ({"output": 5}, "output is a int"),
            ({"fast": True}, r"give video=tfstyle\.video\.VideoOptions\(fast=\.\.\.\)"),
            ({"start": 5}, r"give selection=tfstyle\.video\.Selection\(start=\.\.\.\)"),
            ({"checkpoint": 5}, "checkpoint is a int"),
        ],
    )
    def test_arguments_of_other_types_are_one_line(self, options, tmp_path, arguments, message):
        arguments = {"output": tmp_path / "out.mp4", **arguments}
        with pytest.raises(ConfigError, match=message):
            stylize(pan(2, SHAPE).frames, STYLE, **arguments, **options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temporal_weight": -1}, "temporal_weight is -1"),
        ({"frame_iterations": 0}, "frame_iterations is 0"),
        ({"passes": 1.5}, r"passes is 1\.5"),
        ({"memory_frames": (2, 10)}, r"memory_frames is \(2, 10\)"),
        ({"memory_frames": (1, 1)}, "memory_frames"),
        ({"memory_frames": ()}, "memory_frames"),
        ({"flow": "raft"}, "flow is 'raft'"),
    ],
)
def test_wrong_options_are_one_line(values, message):
    with pytest.raises(ConfigError, match=message):
        VideoOptions(**values)


def test_the_frame_store_rounds_to_16_bits(tmp_path):
    image = np.random.default_rng(0).random((4, 5, 3), np.float32)
    store = FrameStore(keep=1, folder=tmp_path)
    stored = store.write((1, 1), image)
    assert np.abs(stored - image).max() <= 0.5 / 65535 + 1e-7
    store.write((1, 2), image * 0.5)
    assert np.array_equal(store.read((1, 1)), stored)  # from its file
    assert (1, 1) in store
    store.forget((1, 1))
    assert (1, 1) not in store


class TestAhead:
    def test_it_yields_the_items_in_order(self):
        ahead = Ahead(iter(range(20)))
        assert list(ahead) == list(range(20))
        assert list(ahead) == []
        ahead.close()

    def test_it_raises_the_errors_of_its_items(self):
        def items():
            yield 1
            raise RunError("full")

        ahead = Ahead(items())
        assert next(ahead) == 1
        with pytest.raises(RunError, match="full"):
            next(ahead)
        ahead.close()

    def test_closing_ends_the_thread_and_the_items(self):
        closed = threading.Event()

        def items():
            try:
                while True:
                    yield 0
            finally:
                closed.set()

        ahead = Ahead(items())
        next(ahead)
        ahead.close()
        assert closed.is_set()
        assert not ahead._thread.is_alive()

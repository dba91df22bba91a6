"""Presets against slow NumPy written from the sources of the programs, and against figures of the programs.

The figures are copied by hand from the documentation and the source code of the programs. They are in the
units of the programs, in which pixels are in 0..255, 0..256 or 0..1.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tests import peers, reference
from tests.conftest import make_image
from tfstyle import StyleConfig, preset
from tfstyle.config import quality_options
from tfstyle.errors import ConfigError
from tfstyle.images import ImageArray
from tfstyle.presets import PRESETS
from tfstyle.run import iterations_per_scale, make_setup, read_inputs, scale_shapes

#: Mean of ImageNet in R, G and B, which the programs with the Caffe weights subtract.
MEAN_RGB = np.array([123.68, 116.779, 103.939])
#: Standard deviations of ImageNet in R, G and B, by which torchvision divides pixels in 0..1.
TORCHVISION_STD = (0.229, 0.224, 0.225)
FAST = {"precision": "float32", "compile": "eager"}
#: Layers that the small encoder and its file of weights have.
LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1",), "style_layer_weights": None}


# Losses


@pytest.mark.parametrize("name", peers.PROGRAMS)
def test_losses_equal_those_of_the_program(name):
    config = preset(name).replace({**FAST, "weights": "random", "normalize_weights": False})
    content, style, image = (make_image(36, 44, seed) for seed in (1, 2, 3))
    image = np.clip(image + 0.1 * np.random.default_rng(0).normal(size=image.shape), 0, 1).astype("f4")
    setup = make_setup(config, "/CPU:0", images=[ImageArray(content), ImageArray(style)])
    summary = setup.objective.style_summary(tf.constant(style[None]))
    targets = setup.objective.targets(tf.constant(content[None]), [summary])
    terms = {key: float(value) for key, value in setup.objective(tf.constant(image[None]), targets).items()}

    def features(rgb):
        return {k: v[0].numpy().astype(float) for k, v in setup.encoder(tf.constant(rgb[None])).items()}

    arguments = features(image), features(content), features(style), image.astype(float)
    if name == "crowsonkb":
        program_terms = peers.crowsonkb(*arguments, root=peers.exact_root)
        expected = dict(zip(("content", "style", "tv"), map(float, program_terms), strict=True))
        expected["total"] = sum(expected.values())
    else:
        expected = peers.objective(name, *arguments)
    for term, value in expected.items():
        assert terms[term] == pytest.approx(value, rel=1e-3, abs=1e-12), term
    assert expected["content"] > 0 < expected["style"]


def test_losses_equal_those_of_the_paper(small_encoder):
    """Gatys et al. 2016, eq. 1, 3, 4 and 5, with α = 1e-3 and β = 1 as in Fig. 3 B."""
    content, style, image = (make_image(12, 14, seed) for seed in (1, 2, 3))
    config = preset("gatys2016").replace({**FAST, **LAYERS, "normalize_weights": False})
    setup = make_setup(config, "/CPU:0", encoder=small_encoder)
    summary = setup.objective.style_summary(tf.constant(style[None]))
    targets = setup.objective.targets(tf.constant(content[None]), [summary])
    terms = setup.objective(tf.constant(image[None]), targets)
    features_x, features_content, features_style = (
        {layer: value[0].numpy() for layer, value in small_encoder(x[None]).items()}
        for x in (image, content, style)
    )
    content_loss = reference.content_loss(features_x["conv2_1"], features_content["conv2_1"])
    grams = [reference.gram(features["conv1_1"]) for features in (features_x, features_style)]
    assert float(terms["content"]) == pytest.approx(1e-3 * content_loss, rel=1e-4)
    assert float(terms["style"]) == pytest.approx(reference.style_loss(*grams), rel=1e-4)
    assert float(terms["tv"]) == 0


# The network


class Network(NamedTuple):
    """The network of a program: its pooling, its pixel range, and the padding of its first convolution."""

    pooling: str
    pixel_range: float = 255.0
    first_padding: str = "zeros"


NETWORKS = {
    "gatys2016": Network("avg"),  # section 2: average pooling
    "neural-style": Network("max", pixel_range=256.0),  # image:mul(256.0); -pooling max
    "neural-style-pt": Network("max"),  # -pooling max
    "gatys-pytorch": Network("max"),
    "gatys-normalised": Network("avg"),
    "crowsonkb": Network("max", first_padding="replicate"),  # --pooling max
    "neural-style-tf": Network("avg"),  # --pooling_type avg
    "anishathalye": Network("max"),  # --pooling max
    "tensorflow-tutorial": Network("max"),  # VGG19 of keras.applications
    "spst": Network("max"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_features_equal_those_of_the_network_of_the_program(name, small_file, small_weights):
    config = preset(name).replace({**FAST, **LAYERS, "weights": str(small_file), "normalize_weights": False})
    image, network = make_image(12, 14), NETWORKS[name]
    expected = image.astype(float)[..., ::-1] * network.pixel_range - reference.MEAN_BGR
    for convolution in ("block1_conv1", "block1_conv2", "block2_conv1"):
        arrays = [small_weights.arrays[f"{convolution}/{part}"] for part in ("kernel", "bias")]
        if convolution == "block2_conv1":
            expected = reference.pool(expected, network.pooling)
        padding = network.first_padding if convolution == "block1_conv1" else "zeros"
        expected = reference.conv_relu(expected, *arrays, padding)
    # torchvision has one divisor per channel, and the preset has one for all of them.
    unit, tolerance = (255 * np.mean(TORCHVISION_STD), 0.01) if name == "crowsonkb" else (1, 1e-5)
    features = make_setup(config, "/CPU:0").encoder(image[None])["conv2_1"][0]
    assert reference.relative_error(features, expected / unit) < tolerance


@pytest.mark.parametrize("name", PRESETS)
def test_which_presets_normalise_the_weights(name, small_file):
    """Gatys et al. 2016, section 2: the mean activation of each filter over images and positions is 1."""
    images = [make_image(16, 20, seed) for seed in (1, 2)]
    config = preset(name).replace({**FAST, **LAYERS, "weights": str(small_file)})
    encoder = make_setup(config, "/CPU:0", images=[ImageArray(image) for image in images]).encoder
    means = encoder(np.stack(images))["conv1_1"].numpy().mean((0, 1, 2))
    assert np.allclose(means[means > 0], 1, atol=1e-4) == (name in ("gatys2016", "gatys-normalised"))


# The optimiser


class Adam(NamedTuple):
    """Adam of a program, in the units of the program.

    `corrected` is True if ε is added after the bias correction, as in PyTorch, and False if it is added
    before it, as in Torch7 and TensorFlow.
    """

    pixel_range: float
    learning_rate: float
    beta_1: float
    beta_2: float
    epsilon: float
    corrected: bool
    clips: bool = False
    ema_decay: float = 0.0


ADAM = {
    # -learning_rate 1e1; betas and ε are the defaults of optim.adam.
    "neural-style": Adam(256.0, 10.0, 0.9, 0.999, 1e-8, corrected=False),
    # -learning_rate 1e0; betas and ε are the defaults of torch.optim.Adam.
    "neural-style-pt": Adam(255.0, 1.0, 0.9, 0.999, 1e-8, corrected=True),
    # --step-size 0.02, betas=(0.9, 0.99), --avg-decay 0.99; ε is the default of torch.optim.Adam.
    "crowsonkb": Adam(1.0, 0.02, 0.9, 0.99, 1e-8, corrected=True, clips=True, ema_decay=0.99),
    # --learning-rate 1e1, --beta1 0.9, --beta2 0.999, --epsilon 1e-08
    "anishathalye": Adam(255.0, 10.0, 0.9, 0.999, 1e-8, corrected=False),
    # tf.keras.optimizers.Adam(learning_rate=0.02, beta_1=0.99, epsilon=1e-1), and clip_0_1
    "tensorflow-tutorial": Adam(1.0, 0.02, 0.99, 0.999, 1e-1, corrected=False, clips=True),
}


def slow_adam(facts, pixels, gradients):
    """Return the last iterate and the EMA of the iterates, in the units of the program."""
    first, second = np.zeros_like(pixels), np.zeros_like(pixels)
    iterates = [pixels]
    for t, gradient in enumerate(gradients, 1):
        first = facts.beta_1 * first + (1 - facts.beta_1) * gradient
        second = facts.beta_2 * second + (1 - facts.beta_2) * gradient**2
        root = np.sqrt(1 - facts.beta_2**t)
        epsilon = facts.epsilon * root if facts.corrected else facts.epsilon
        rate = facts.learning_rate * root / (1 - facts.beta_1**t)
        pixels = pixels - rate * first / (np.sqrt(second) + epsilon)
        iterates.append(np.clip(pixels, 0, facts.pixel_range) if facts.clips else pixels)
        pixels = iterates[-1]
    decay = facts.ema_decay
    weights = [(1 - decay) * decay**k for k in reversed(range(len(iterates)))]
    return pixels, np.average(iterates, axis=0, weights=weights)


def run_optimizer(config, encoder, start, gradients):
    """Return the last iterate of a preset's optimiser, and its solution, for given gradients."""
    optimizer = make_setup(config.replace({**FAST, **LAYERS}), "/CPU:0", encoder=encoder).optimizer
    terms = {"total": tf.zeros([])}
    x = tf.constant(start, tf.float32)
    state = optimizer.init(x)
    for gradient in gradients:
        x, state, _ = optimizer.step(lambda _, g=gradient: (terms, tf.constant(g, tf.float32)), x, state)
    return x.numpy(), optimizer.solution(x, state).numpy()


@pytest.mark.parametrize("name", ADAM)
def test_steps_of_adam_equal_those_of_the_program(name, small_encoder):
    """Gradients have sizes from a tenth of ε to 1000 ε. Half of the pixels are at the upper bound."""
    facts, generator = ADAM[name], np.random.default_rng(0)
    config = preset(name).replace({"optimizer": "adam"})
    start = np.where(generator.random((1, 8, 8, 3)) < 0.5, 1.0, 0.5)
    sizes = facts.epsilon * 10 ** generator.uniform(-1, 3, (3, *start.shape))
    gradients = sizes * generator.choice([-1, 1], sizes.shape)
    iterate, solution = run_optimizer(config, small_encoder, start, gradients * facts.pixel_range)
    expected, average = slow_adam(facts, start * facts.pixel_range, gradients)
    assert (expected.max() > facts.pixel_range) != facts.clips
    assert reference.relative_error(iterate - start, expected / facts.pixel_range - start) < 1e-4
    if facts.ema_decay:
        expected = average
    assert reference.relative_error(solution - start, expected / facts.pixel_range - start) < 1e-4


#: Program with L-BFGS of Torch or PyTorch -> its pixel range. None of them has a line search or clips pixels.
TORCH_LBFGS = {
    "neural-style": 256.0,
    "neural-style-pt": 255.0,
    "gatys-pytorch": 255.0,
    "gatys-normalised": 255.0,
    "spst": 255.0,
}


@pytest.mark.parametrize("name", TORCH_LBFGS)
def test_lbfgs_of_torch(name, small_encoder):
    """The first step of torch.optim.LBFGS with lr=1 is -min(1, 1 / Σ|g|) g. Its default history is 100."""
    config = preset(name).replace({"normalize_weights": False})
    start, pixel_range = np.ones((1, 4, 4, 3)), TORCH_LBFGS[name]
    for scale in (0.02, 1.0):  # Σ|g| is below and above 1
        gradient = -scale * np.random.default_rng(0).uniform(0.5, 1, start.shape)
        iterate, _ = run_optimizer(config, small_encoder, start, [gradient * pixel_range])
        expected = -gradient * min(1, 1 / np.abs(gradient).sum())
        assert reference.relative_error((iterate - start) * pixel_range, expected) < 0.01
    assert config.lbfgs_history == 100


def test_lbfgs_of_scipy():
    """neural-style-tf uses the interface of TensorFlow 1 to SciPy's L-BFGS-B, whose default is maxcor=10."""
    config = preset("neural-style-tf")
    assert (config.optimizer, config.lbfgs_history, config.clamp) == ("lbfgs", 10, False)


# The initial image


@pytest.mark.parametrize(
    "name",
    ["gatys-pytorch", "gatys-normalised", "crowsonkb", "neural-style-tf", "tensorflow-tutorial", "spst"],
)
def test_programs_that_start_from_the_content_image(name):
    content, style = make_image(48, 64, 1), make_image(48, 64, 2)
    inputs = read_inputs(content, style, preset(name).replace({"size": 48, "size_of": "shortest"}))
    assert np.array_equal(inputs.start_image((48, 64)), content)


@pytest.mark.parametrize(
    ("name", "pixel_range", "deviation"),
    [
        ("neural-style", 256.0, 1e-3),  # torch.randn(...):mul(0.001)
        ("neural-style-pt", 255.0, 1e-3),  # torch.randn(...).mul(0.001)
        ("anishathalye", 255.0, 0.256),  # tf.random_normal(shape) * 0.256
    ],
)
def test_programs_that_start_from_noise_around_the_mean_of_imagenet(name, pixel_range, deviation):
    image = make_image(64, 64)
    start = read_inputs(image, image, preset(name).replace({"size": 64})).start_image((64, 64))
    noise = start * pixel_range - MEAN_RGB
    assert np.abs(noise.mean((0, 1))).max() < 0.1 * max(deviation, 0.1)
    assert noise.std() == pytest.approx(deviation, rel=0.1)


# Sizes and iterations


def test_the_number_of_iterations_can_be_chosen():
    config = preset("crowsonkb").replace({"iterations": 100})
    assert iterations_per_scale(config, 3) == [1000, 100, 100]


@pytest.mark.parametrize(
    ("name", "large", "small"),
    [
        # -image_size 512, which also enlarges
        ("neural-style", (341, 512), (341, 512)),
        ("neural-style-pt", (341, 512), (341, 512)),
        # img_size_hr = 800 of the shorter side
        ("gatys-pytorch", (800, 1200), (800, 1200)),
        # hr_img_size = 1024, the root of the area; small images are not enlarged
        ("gatys-normalised", (836, 1254), (60, 90)),
        # --end-scale 512
        ("crowsonkb", (341, 512), (341, 512)),
        # --max_size 512; small images are not enlarged
        ("neural-style-tf", (341, 512), (60, 90)),
        # the size of the content image
        ("anishathalye", (900, 1350), (60, 90)),
        ("spst", (900, 1350), (60, 90)),
        # max_dim = 512
        ("tensorflow-tutorial", (341, 512), (341, 512)),
    ],
)
def test_sizes_of_the_result(name, large, small):
    style = np.zeros((16, 24, 3), np.float32)
    for shape, expected in (((900, 1350, 3), large), ((60, 90, 3), small)):
        assert read_inputs(np.zeros(shape, np.float32), style, preset(name)).shape == expected


@pytest.mark.parametrize(
    ("name", "full", "shapes", "iterations"),
    [
        ("neural-style", (384, 512), [(384, 512)], [1000]),
        ("neural-style-pt", (384, 512), [(384, 512)], [1000]),
        ("gatys-pytorch", (800, 1067), [(512, 683), (800, 1067)], [500, 200]),
        ("gatys-normalised", (1024, 1024), [(512, 512), (1024, 1024)], [500, 200]),
        ("neural-style-tf", (384, 512), [(384, 512)], [1000]),
        ("tensorflow-tutorial", (384, 512), [(384, 512)], [1000]),
        ("anishathalye", (900, 700), [(900, 700)], [1000]),
        (
            "crowsonkb",
            (512, 512),
            [(128, 128), (181, 181), (256, 256), (362, 362), (512, 512)],
            [1000, 500, 500, 500, 500],
        ),
        # Halved until the shorter side is at most 1023. Scale s has max(600 // 3^s, 30) iterations.
        ("spst", (4096, 5000), [(512, 625), (1024, 1250), (2048, 2500), (4096, 5000)], [600, 200, 66, 30]),
        ("spst", (1000, 1500), [(1000, 1500)], [600]),
        ("spst", (2000, 3000), [(1000, 1500), (2000, 3000)], [600, 200]),
    ],
)
def test_scales_and_iterations(name, full, shapes, iterations):
    config = preset(name)
    assert scale_shapes(full, config, minimum=16) == shapes
    assert iterations_per_scale(config, len(shapes)) == iterations


def test_which_presets_carry_the_state_of_adam_to_the_next_scale():
    """The program of crowsonkb interpolates the moments of Adam to the size of the next scale."""
    assert [name for name in PRESETS if preset(name).warm_start] == ["crowsonkb"]


def test_presets_of_programs_do_not_change_with_the_defaults():
    """A program's preset sets every option on which the result depends, except those of the user's images."""
    fields = {field.name: field.metadata["group"] for field in dataclasses.fields(StyleConfig)}
    free = {name for name, group in fields.items() if group in ("machine", "style control")}
    free |= {"quality", "weights", "network", "seed"}
    free -= {"alpha", "style_rotations"}  # of the program with the method neighbours
    for name in PRESETS.keys() - {"default"}:
        colours = {"color"} if name == "nnst" else set()  # the program has its own
        assert set(fields) - set(PRESETS[name].options) == free - colours, name


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "default"])
def test_presets_of_programs_do_not_change_with_the_qualities(name, monkeypatch):
    before = preset(name)
    smaller = before.replace(size=64)
    changed = {"iterations": before.iterations, "first_iterations": 5, "iteration_decay": 3.0}
    assert set(changed) == set(quality_options())
    monkeypatch.setattr("tfstyle.config.QUALITIES", {"standard": changed})
    assert preset("default").first_iterations == 5
    assert preset(name) == before
    assert preset(name).replace(iterations=before.iterations) == before
    assert preset(name).replace(size=64) == smaller


def test_an_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match=r"'gatys2015'.* default, gatys2016, neural-style"):
        preset("gatys2015")

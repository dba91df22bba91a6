"""Fixtures: the weights of a small encoder, small images, and the test data with the weights of VGG-19."""

import importlib.util
import os
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")  # figures open no window
# With pytest-xdist, the threads of the workers' linear algebra would wait for each other. NumPy reads these
# variables when it is imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image  # noqa: E402

DATA = Path(os.environ.get("TFSTYLE_TEST_DATA", Path(__file__).parents[2] / "shared"))

#: Test modules whose subject depends on the versions of TensorFlow, Keras, NumPy or Pillow. They run on every
#: supported stack (`pytest -m core`), except for their slow tests.
CORE = """
    callbacks.test_films callbacks.test_logs callbacks.test_notebook_progress images.test_color
    images.test_formats images.test_loading losses.test_gram losses.test_normalization losses.test_style
    losses.test_training losses.test_variation network.test_encoder network.test_encoder_layer
    network.test_weights optim.test_optimizers optim.test_step run.test_callbacks run.test_extra_losses
    run.test_results run.test_setup run.test_transfer serving.test_extractor serving.test_numbers
    serving.test_saved_model serving.test_serving test_addons tiling.test_tile_step
"""


#: Modules of the page that import Gradio, which is not among the requirements of the usual tests.
GRADIO_MODULES = tuple(
    f"tfstyle.web.{name}"
    for name in ("controls", "display", "explain", "guarding", "jobs", "page", "paint", "variations", "video")
)


#: Modules of the cluster that import Ray, which is not among the requirements of the usual tests either.
RAY_MODULES = tuple(
    f"tfstyle.cluster.{name}"
    for name in (
        "addresses", "coordinator", "extracting", "manifest_parts", "painter", "runs", "session", "watcher"
    )
)  # fmt: skip


def importable(module):
    """Return whether a module of the package can be imported here; some need Gradio or Ray."""
    needed = "gradio" if module in GRADIO_MODULES else "ray" if module in RAY_MODULES else "numpy"
    return importlib.util.find_spec(needed) is not None


def pytest_collection_modifyitems(items):
    for item in items:
        name = item.module.__name__.removeprefix("tests.")
        if name in CORE.split() and item.get_closest_marker("slow") is None:
            item.add_marker("core")


def webp(*values):
    """Return a case of a parametrised test in which TensorFlow reads a WebP file."""
    from tfstyle.backend import KERAS_2

    mark = pytest.mark.skipif(KERAS_2, reason="TensorFlow 2.15 reads no WebP, 2.20 does")
    return pytest.param(*values, marks=mark)


@pytest.fixture(scope="session")
def data():
    """The folder with the ImageNet weights of VGG-19's lower blocks, images and reference numbers."""
    if not (DATA / "weights" / "vgg19_imagenet_block1-3.npz").is_file():
        if os.environ.get("CI"):
            pytest.fail(f"CI needs the test data, which is not at {DATA}")
        pytest.skip(f"no test data at {DATA}; set TFSTYLE_TEST_DATA")
    return DATA


@pytest.fixture(scope="session")
def small_weights():
    """Seeded random weights of the first four convolutions: conv1_1 .. conv2_2."""
    from tfstyle.network import weights

    whole = weights.random_weights(seed=1)
    generator = np.random.default_rng(1)
    arrays = {key: array for key, array in whole.arrays.items() if key[5] in "12"}
    # The biases are not zero, so that a test notices whether they are used.
    arrays = {
        k: generator.normal(0, 5, a.shape).astype("f4") if "bias" in k else a for k, a in arrays.items()
    }
    return weights.Weights(arrays, source="small")


@pytest.fixture(scope="session")
def small_file(small_weights, tmp_path_factory):
    """The file of the small weights, for the command line."""
    path = tmp_path_factory.mktemp("weights") / "small.npz"
    np.savez(path, **small_weights.arrays)
    return path


@pytest.fixture(scope="session")
def small_encoder(small_weights):
    from tfstyle import Encoder

    return Encoder(("conv1_1", "conv2_1", "conv2_2"), small_weights)


@pytest.fixture(scope="session")
def whole_network():
    """A complete VGG-19 without top, with biases that are not zero."""
    import keras

    network = keras.applications.VGG19(include_top=False, weights=None)
    generator = np.random.default_rng(0)
    for layer in network.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, generator.normal(size=bias.shape)])
    return network


def make_image(height, width, seed=0):
    """Return an image of smooth coloured waves, float32 in 0..1, different for every seed."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    phase = generator.uniform(0.5, 2, (3, 3))
    waves = [0.5 + 0.4 * np.sin(9 * phase[c, 0] * x + 7 * phase[c, 1] * y + phase[c, 2]) for c in range(3)]
    return np.stack(waves, -1).astype(np.float32)


@pytest.fixture
def content():
    return make_image(40, 56, seed=2)


@pytest.fixture
def style():
    return make_image(48, 44, seed=3)


@pytest.fixture
def files(tmp_path, content, style):
    """A temporary folder with content.png and style.png."""
    from PIL import Image

    for name, array in (("content", content), ("style", style)):
        Image.fromarray((array * 255).round().astype(np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def write_noise_wheels(folder, sources, side):
    """Write the wheels of ``SOURCES`` of make_embedded.py, with noise images in place of the photographs."""
    generator = np.random.default_rng(0)
    for package, (version, inside, names) in sources.items():
        wheel = folder / f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name in names.split():
                image = Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))
                with archive.open(f"{inside}/{name}", "w") as file:
                    image.save(file, "PNG" if name.endswith("png") else "JPEG")


@pytest.fixture
def folders(tmp_path):
    """A temporary folder with three images in ``contents`` and two in ``styles``."""
    for folder, shapes in (("contents", [(40, 56), (56, 40), (40, 56)]), ("styles", [(48, 44), (44, 48)])):
        (tmp_path / folder).mkdir()
        for i, shape in enumerate(shapes):
            pixels = (make_image(*shape, seed=i + len(folder)) * 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    return tmp_path


@pytest.fixture
def write_parquet():
    """A function that writes columns to a Parquet file. New versions of pyarrow refuse NumPy 1."""
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    import pyarrow

    return lambda columns, file: parquet.write_table(pyarrow.table(columns), file)

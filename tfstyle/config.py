"""Every option of a run: its default, its check, its words for the command line. No TensorFlow here.

`StyleConfig` is the one source: the command line's flags, the picture's metadata and the checks of
`stylize` are all made from its fields.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from typing_extensions import Unpack

from tfstyle.errors import ConfigError

#: Gatys et al. 2016, section 3; a layer that the weights do not reach gives way to one they do.
STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
CONTENT_LAYERS = ("conv4_2",)
#: What measures best with the embedded weights: nearer at all depths than without the two conv*_2.
EMBEDDED_STYLE_LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_4")

STYLE_LOSSES = (
    "gram", "mean_deviation", "wasserstein", "histogram", "sliced", "shift",
    "local", "local_by_content", "chain", "blurred", "across",
)  # fmt: skip

#: Seconds between two checkpoints of a run, by default.
CHECKPOINT_SECONDS = 300.0
#: Values of `StyleConfig.init` other than the path of an image file.
INIT_NAMES = ("content", "noise", "style", "grey", "uniform", "mean", "style_stats")

#: The optimisers of `tfstyle.addons`.
ADDONS = (
    "adabelief", "adamw", "cocob", "lamb", "lazyadam", "lookahead", "movingaverage", "novograd",
    "proximaladagrad", "radam", "sgdw", "swa", "yogi",
)  # fmt: skip


def _option(
    default: Any, help: str, *, choices: tuple[str, ...] = (), low: float = -math.inf, high: float = math.inf
) -> Any:
    """A dataclass field with what the check and the command line need to know about it."""
    return dataclasses.field(
        default=default, metadata={"help": help, "choices": choices, "low": low, "high": high}
    )


class TransferOptions(TypedDict, total=False):
    """The fields of `StyleConfig` as keyword arguments, for editors and type checkers.

    It leaves out ``optimizer`` and ``masks``, which are arguments of `tfstyle.stylize` itself.
    """

    size: int
    size_of: str
    enlarge: bool
    style_scale: Sequence[float] | None
    style_size: Sequence[int] | None
    weights: str | os.PathLike[str]
    network: str
    pooling: str
    padding: str
    pixel_range: float
    feature_scale: float
    normalize_weights: bool
    content_layers: Sequence[str] | None
    style_layers: Sequence[str] | None
    content_layer_weights: Sequence[float] | None
    style_layer_weights: Sequence[float] | None
    content_weight: float
    style_weight: float
    style_losses: Sequence[str]
    style_loss_weights: Sequence[float] | None
    tv_weight: float
    tv_form: str
    normalize_gradients: bool
    style_blend: Sequence[float] | None
    fine_style: str | os.PathLike[str] | None
    loss_normalization: str
    color: str
    style_masks: Sequence[str | os.PathLike[str]] | None
    content_mask: str | os.PathLike[str] | None
    mask_blur: float
    guidance: str
    init: str | os.PathLike[str]
    init_noise: float
    learning_rate: float
    beta_1: float
    beta_2: float
    epsilon: float
    epsilon_corrected: bool
    lbfgs_history: int
    clamp: bool
    ema_decay: float
    warm_start: bool
    iterations: int
    first_iterations: int | None
    iteration_decay: float | None
    scales: int | None
    scale_factor: float
    min_scale: int
    tolerance: float
    seed: int
    compile: str
    device: str
    precision: str
    steps_per_call: int | None
    tile: int | str
    memory: float | None
    max_pixels: int | None


class StyleOptions(TransferOptions, total=False):
    """All fields of `StyleConfig` as keyword arguments, for editors and type checkers."""

    optimizer: str
    masks: Sequence[str | os.PathLike[str]] | None


@dataclass(frozen=True, kw_only=True)
class StyleConfig:
    """The options of one run. Immutable; `replace` makes a changed copy.

    The defaults were found by looking at four pictures in the styles of five paintings, at 512
    pixels, with VGG-19's genuine lower blocks and with a stand-in of full depth. Tried: content weights
    0.003 to 0.1 (below 0.02 outlines dissolve, at 0.1 skies stay photographs); total variation 0.05 to
    1 (at 1 thin strokes go; 0.3 has fewer coloured stripes than 0.1 and, under the genuine network,
    the same distance to the style); zeros, reflect and replicate (zeros dull the colours along the frame,
    replicate draws a line there); Adam at 0.01, 0.02 and 0.05 (the loss after 100 iterations a scale
    stayed a tenth above that of L-BFGS, and stars and swirls came out fainter).

    Where the options come from: ``color``, ``masks``, ``guidance`` and ``fine_style`` from Gatys et al. 2017,
    Controlling Perceptual Factors; ``style_losses`` as their functions in `tfstyle.losses` say;
    ``normalize_gradients`` and ``style_scale`` from jcjohnson/neural-style; ``ema_decay``, ``warm_start``,
    ``scale_factor``, nine-point variation, and the pooling and padding ``rescaled`` and ``replicate_first``
    from crowsonkb/style-transfer-pytorch; ``content_mask`` as in inpainting: pixels that stay take no part.

    Raises:
        ConfigError: an option has a value it cannot have; the message says which would be right.
    """

    size: int = _option(512, "size of the result in pixels, measured as --size-of says", low=1, high=100_000)
    size_of: str = _option(
        "longest",
        "what --size measures: the longest side, the shortest side, or the square root of the area",
        choices=("longest", "shortest", "area"),
    )
    enlarge: bool = _option(False, "enlarge images that are smaller than --size")
    style_scale: tuple[float, ...] | None = _option(
        None,
        "size of the style images relative to the content image, one number or one per style [1]",
        low=0.01,
    )
    style_size: tuple[int, ...] | None = _option(
        None,
        "longest side of the style images in pixels, one number or one per style [the content image's size]",
        low=1,
    )
    weights: str = _option(
        "imagenet",
        "weights of the encoder: imagenet (downloaded), embedded (in the package), auto (imagenet, else "
        "embedded), random, or a .npz, .h5 or .safetensors file",
    )
    network: str = _option("vgg19", "the encoder", choices=("vgg19", "vgg16"))
    pooling: str = _option(
        "avg",
        "pooling of the encoder; rescaled: average pooling multiplied by 2",
        choices=("avg", "max", "rescaled"),
    )
    padding: str = _option(
        "reflect",
        "padding of the encoder's convolutions; replicate_first: replicate in the first one, zeros in "
        "the others; circular: wraps around",
        choices=("zeros", "reflect", "replicate", "replicate_first", "circular"),
    )
    pixel_range: float = _option(
        255.0, "value of white at the encoder's input; jcjohnson/neural-style uses 256", low=1
    )
    feature_scale: float = _option(1.0, "factor that the encoder's features are multiplied by", low=1e-6)
    normalize_weights: bool = _option(
        False,
        "rescale the weights so that each filter's mean activation over the content and style images is 1",
    )
    content_layers: tuple[str, ...] | None = _option(None, "layers of the content loss [conv4_2]")
    style_layers: tuple[str, ...] | None = _option(None, "layers of the style loss [conv1_1 .. conv5_1]")
    content_layer_weights: tuple[float, ...] | None = _option(
        None, "weights of the content layers, one number per layer [equal]", low=0
    )
    style_layer_weights: tuple[float, ...] | None = _option(
        None, "weights of the style layers, one number per layer [equal]", low=0
    )
    content_weight: float = _option(0.04, "weight of the content loss", low=0)
    style_weight: float = _option(1.0, "weight of the style loss", low=0)
    style_losses: tuple[str, ...] = _option(
        ("gram",),
        "style losses to add up, such as gram (Gram matrices) or mean_deviation (means and standard "
        "deviations)",
        choices=tuple(STYLE_LOSSES),
    )
    style_loss_weights: tuple[float, ...] | None = _option(
        None, "weights of the style losses, one number per loss [1]", low=0
    )
    tv_weight: float = _option(0.3, "weight of the total variation", low=0)
    tv_form: str = _option(
        "mean_squared",
        "form of the total variation: mean_squared: the mean of the squared differences of neighbouring "
        "pixels; sum_squared: half their sum; sum_absolute: the sum of absolute differences; nine_point: "
        "the mean over all eight neighbours",
        choices=("mean_squared", "sum_squared", "sum_absolute", "nine_point"),
    )
    normalize_gradients: bool = _option(
        False,
        "divide the gradient of each layer's loss by its L1 norm; with --optimizer adam or lbfgs_fixed_step",
    )
    style_blend: tuple[float, ...] | None = _option(
        None, "weights of the style images in the blend, one number per style [equal]", low=0
    )
    fine_style: str | None = _option(
        None, "image whose fine-scale style is first transferred to the style image"
    )
    loss_normalization: str = _option(
        "balanced",
        "how each layer's losses are normalized: balanced: relative to the target; paper: sums as in "
        "Gatys et al.; mean: means over all entries; channels: means, with Gram matrices also divided by "
        "the number of channels; root: content losses divided by the square roots of channels and "
        "positions",
        choices=("balanced", "paper", "mean", "channels", "root"),
    )
    color: str = _option(
        "style",
        "style: the style's colours. The others keep the content's: luminance transfers the luminance "
        "only; cholesky, root and transport first match the style image's colours to the content; "
        "transport_result matches the result's; content_chroma gives the result the content's chroma",
        choices=(
            "style", "luminance", "cholesky", "root", "transport", "transport_result", "content_chroma",
        ),
    )  # fmt: skip
    masks: tuple[str, ...] | None = _option(
        None, "for each style, a mask image of its region in the content image (white is inside)"
    )
    style_masks: tuple[str, ...] | None = _option(
        None, "for each style, a mask image of the region of the style image that is used"
    )
    content_mask: str | None = _option(
        None, "mask image of the region in which the content image is not changed"
    )
    mask_blur: float = _option(
        0.0,
        "standard deviation of a Gaussian blur of the masks, as a fraction of the image's longer side",
        low=0,
        high=0.25,
    )
    guidance: str = _option(
        "average",
        "how masks are resized to a layer: average: the mean over each position; dilate: positions whose "
        "receptive field meets the region; erode: positions whose receptive field lies inside it",
        choices=("average", "dilate", "erode"),
    )
    init: str = _option(
        "content",
        "image to start from: content, noise, style, grey, uniform, mean, style_stats, or an image file",
    )
    init_noise: float = _option(
        0.25, "standard deviation of the noise for --init noise and mean, in the 0..1 range", low=0
    )
    optimizer: str = _option(
        "lbfgs",
        "optimiser: lbfgs has a line search, lbfgs_fixed_step has none; addons:NAME is one of "
        "tensorflow-addons",
        choices=("adam", "lbfgs", "lbfgs_fixed_step", *(f"addons:{name}" for name in ADDONS)),
    )  # fmt: skip
    learning_rate: float = _option(
        0.02, "learning rate of adam and of addons:NAME, for pixels in 0..1", low=1e-9
    )
    beta_1: float = _option(0.9, "decay rate of Adam's first moment", low=0, high=0.999999)
    # 0.99 as in crowsonkb's program; after 100 iterations at each of two sizes the loss was 1.4% below that
    # with 0.999.
    beta_2: float = _option(0.99, "decay rate of Adam's second moment", low=0, high=0.999999)
    # A mean's gradient falls with the number of pixels: at 768 x 576 a twentieth of it is below 1e-8, and
    # with Keras' 1e-7 the loss was 2% higher after 40 iterations at each size.
    epsilon: float = _option(1e-10, "added to the square root of Adam's second moment", low=1e-20)
    epsilon_corrected: bool = _option(
        False, "add epsilon after the bias correction of the second moment, as PyTorch does"
    )
    lbfgs_history: int = _option(10, "number of curvature pairs that L-BFGS stores", low=1, high=100)
    clamp: bool = _option(True, "clip the image to 0..1 at every step, not only at the end")
    ema_decay: float = _option(
        0.0, "EMA decay of the output image; 0 returns the last iterate", low=0, high=0.999999
    )
    warm_start: bool = _option(False, "carry Adam's moments over from each scale to the next")
    iterations: int = _option(100, "iterations per scale; each evaluates the loss once", low=1)
    first_iterations: int | None = _option(None, "iterations at the first scale [--iterations]", low=1)
    iteration_decay: float | None = _option(
        None,
        "divide the iterations by this at each further scale, starting from --first-iterations, never "
        "below --iterations",
        low=1,
    )
    scales: int | None = _option(
        None, "number of scales, coarse to fine [as many as --min-scale allows]", low=1, high=20
    )
    scale_factor: float = _option(
        2.0, "ratio of the size of each scale to that of the scale before", low=1.01
    )
    min_scale: int = _option(
        91,
        "minimum size of the first scale in pixels, measured as --size-of says; unused with --scales",
        low=1,
    )
    tolerance: float = _option(
        0.0,
        "stop a scale early when the loss falls by less than this fraction within 10 iterations; 0: never",
        low=0,
        high=1,
    )
    seed: int = _option(0, "seed of the initial noise and of random weights", low=0, high=2**32 - 1)
    compile: str = _option(
        "auto",
        "how the step is compiled; auto: xla on a GPU, graph on a CPU",
        choices=("auto", "xla", "graph", "eager"),
    )
    device: str = _option("auto", "auto, cpu, or gpu:N")
    precision: str = _option(
        "auto",
        "data type of the encoder's features; auto: 16 bits where the hardware supports it",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    steps_per_call: int | None = _option(
        None,
        "maximum number of iterations per call of the compiled step; always 1 in tiles [10 on a GPU, else 1]",
        low=1,
    )
    tile: int | str = _option(
        "auto",
        "side of tiles in pixels; off: the whole image at once; auto: tiles if a step does not fit into "
        "--memory",
    )
    memory: float | None = _option(
        None, "memory limit in GB (10^9 bytes) of the process, or of the GPU [what is free]", low=1e-3
    )
    max_pixels: int | None = _option(
        None, "largest image file that is read, in pixels [Pillow's limit]", low=1
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            value = _plain(value)
            if field.name == "tile" and isinstance(value, int) and not isinstance(value, bool):
                value = str(value)
            object.__setattr__(self, field.name, value)
            _check(field, value)
        for layers, weights in (
            ("content_layers", "content_layer_weights"),
            ("style_layers", "style_layer_weights"),
            ("style_losses", "style_loss_weights"),
        ):
            names, numbers = getattr(self, layers), getattr(self, weights)
            if names is not None and len(set(names)) < len(names):
                raise ConfigError(f"{layers} names one twice")
            if numbers is not None and (names is None or len(names) != len(numbers)):
                raise ConfigError(f"{weights} needs {layers} with as many entries")
            if numbers is not None and sum(numbers) <= 0:
                raise ConfigError(f"{weights} are all zero")
        if self.style_scale is not None and self.style_size is not None:
            raise ConfigError("style_scale and style_size both set the styles' size; give one")
        if self.warm_start and self.optimizer != "adam":
            raise ConfigError("warm_start carries Adam's state over; optimizer must be adam")
        if not re.fullmatch(r"auto|cpu|gpu:\d+", self.device):
            raise ConfigError(f"device is {self.device!r}; it can be auto, cpu, gpu:0, gpu:1, ...")
        if not re.fullmatch(r"auto|off|0*[1-9]\d{0,5}", str(self.tile)):
            raise ConfigError(f"tile is {self.tile!r}; it can be auto, off, or a number of pixels from 1")
        if self.style_blend is not None and sum(self.style_blend) <= 0:
            raise ConfigError("style_blend is all zero")
        if self.content_weight == self.style_weight == self.tv_weight == 0:
            raise ConfigError("content_weight, style_weight and tv_weight are all 0: nothing to do")

    def replace(
        self, changes: Mapping[str, Any] | StyleOptions | None = None, /, **options: Unpack[StyleOptions]
    ) -> StyleConfig:
        """Return a copy with some options changed.

        Args:
            changes: a mapping from option names to values, for names that are only known at run time.
            **options: options as keyword arguments; they take precedence over ``changes``.

        Raises:
            ConfigError: an option does not exist, or its value is not allowed.

        Example:
            >>> StyleConfig().replace(size=1024, scales=3).size
            1024
        """
        merged: dict[str, Any] = {**(changes or {}), **options}
        names = {field.name for field in dataclasses.fields(self)}
        if unknown := sorted(set(merged) - names):
            raise ConfigError(f"no option {unknown[0]!r}; there are {', '.join(sorted(names))}")
        return dataclasses.replace(self, **merged)

    def as_dict(self) -> dict[str, Any]:
        """The options as plain values that JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def check_init(config: StyleConfig) -> None:
    """Raise ConfigError unless a config's ``init`` is one of `INIT_NAMES` or an existing file."""
    if config.init not in INIT_NAMES and not os.path.exists(config.init):
        raise ConfigError(f"init is {config.init!r}; it can be {', '.join(INIT_NAMES)}, or an image file")


def check_style_count(config: StyleConfig, count: int) -> None:
    """Raise ConfigError if there is no style image, or a per-style option does not have one value for each.

    ``style_scale`` and ``style_size`` may also have a single value, which then holds for all style images.
    """
    if not count:
        raise ConfigError("no style image")
    for option in ("style_blend", "style_scale", "style_size"):
        values = getattr(config, option)
        allowed = {count} if option == "style_blend" else {1, count}
        if values is not None and len(values) not in allowed:
            raise ConfigError(f"{option} has {len(values)} numbers for {count} style images")


def check_mask_count(option: str, count: int, *, styles: int) -> None:
    """Raise ConfigError unless the number of masks is 0 or equals the number of style images."""
    if count not in (0, styles):
        raise ConfigError(f"{count} {option} for {styles} style images: give one for each")


def check_single_image_options(config: StyleConfig) -> None:
    """Raise ConfigError where a config has an option that only makes sense for one content image."""
    for option in ("masks", "style_masks", "content_mask"):
        if getattr(config, option) is not None:
            raise ConfigError(f"{option} belongs to one image; batch cannot take it")


def _plain(value: Any) -> Any:
    """Paths as strings, NumPy's numbers as Python's, lists as tuples."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, (int, float)) else value


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    """Raise ConfigError where a value is not of the field's type, choices or range."""
    kind = str(field.type)
    if value is None and "None" in kind:
        return
    several = kind.startswith("tuple")
    items = value if several and isinstance(value, tuple) else (value,)
    wanted = next(t for name, t in _TYPES.items() if name in kind)
    fits = all(isinstance(i, wanted) and isinstance(i, bool) == (wanted is bool) for i in items)
    if not fits or several != isinstance(value, tuple):
        raise ConfigError(f"{field.name} is {value!r}; expected {kind.replace(' | None', '')}")
    if not items:
        raise ConfigError(f"{field.name} is empty")
    choices, low, high = (field.metadata[key] for key in ("choices", "low", "high"))
    for item in items:
        if choices and item not in choices:
            raise ConfigError(f"{field.name} is {item!r}; it can be {', '.join(choices)}")
        if isinstance(item, (int, float)) and not (low <= item <= high and math.isfinite(item)):
            raise ConfigError(f"{field.name} is {value!r}; it must be {_range(low, high)}")


# A number written without a point is a float too; what comes first here wins in a type like tuple[str, ...].
_TYPES: dict[str, Any] = {"bool": bool, "str": str, "float": (float, int), "int": int}


def _range(low: float, high: float) -> str:
    if math.isinf(low):
        return "a finite number"
    return f"at least {low:g}" if math.isinf(high) else f"from {low:.10g} to {high:.10g}"

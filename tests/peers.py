"""The objectives of other style transfer programs in slow NumPy and float64, written from their source code.

`objective` takes three dicts, layer -> float64 ``[h, w, N]``, which are the features of the image, the
content image and the style image as the program would compute them, with its pixel range, pooling and
padding. It also takes the image ``[H, W, 3]`` in 0..1. Features are taken after the ReLU, except "conv4_2" of
neural-style-tf, see `before_relu`. The result has the weighted terms content, style and tv, and their sum
total, whose gradient the program follows. The total that neural-style logs does not include tv.

F and P are the features of the image and of the content image. G and A are the Gram matrices of the image and
of the style image, as sums over the M positions. N is the number of channels.
"""

import numpy as np

from tests import reference

STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")


def objective(preset, features_x, features_content, features_style, image):
    """Return content, style, tv and total of the program after which ``preset`` is named."""
    content, style, tv = map(float, PROGRAMS[preset](features_x, features_content, features_style, image))
    return {"content": content, "style": style, "tv": tv, "total": content + style + tv}


# Parts that several programs share


def before_relu(below, kernel, bias, padding="zeros"):
    """Return the 3 x 3 convolution of the layer below, without the ReLU of `reference.conv_relu`."""
    padded = np.pad(below, [(1, 1), (1, 1), (0, 0)], mode=reference.PAD_MODE[padding])
    height, width = below.shape[:2]
    out = np.zeros((height, width, kernel.shape[-1]))
    for y in range(height):
        for x in range(width):
            out[y, x] = (
                np.einsum("abc,abcd->d", padded[y : y + 3, x : x + 3], kernel.astype(np.float64)) + bias
            )
    return out


def positions(features):
    return features.shape[0] * features.shape[1]


def raw_gram(features):
    return np.einsum("yxi,yxj->ij", features, features)


def mean_square(a, b):
    """Return the mean of (a - b)² over all entries, as nn.MSELoss, reduce_mean and 2 l2_loss / size do."""
    return ((a - b) ** 2).mean()


def sums_of_differences(image, power):
    """Return the sums of |difference|^p over all pairs of vertical and of horizontal neighbours."""
    height, width = image.shape[:2]
    down = sum((np.abs(image[y + 1] - image[y]) ** power).sum() for y in range(height - 1))
    right = sum((np.abs(image[:, x + 1] - image[:, x]) ** power).sum() for x in range(width - 1))
    return down, right


def absolute_variation(image):
    """Return Σ |dx| + Σ |dy|, which is tf.image.total_variation of an image."""
    down, right = sums_of_differences(image, 1)
    return down + right


# jcjohnson/neural-style and ProGamerGov/neural-style-pt


def johnson_losses(x, content, style):
    """Return 5 mean (F - P)² at relu4_2, and 100 mean (G/(N M) - A/(N M_s))² summed over the style layers."""
    content_loss = 5.0 * mean_square(x["conv4_2"], content["conv4_2"])
    style_loss = 0.0
    for layer in STYLE_LAYERS:
        f, s = x[layer], style[layer]
        style_loss += 100.0 * mean_square(raw_gram(f) / f.size, raw_gram(s) / s.size)
    return content_loss, style_loss


def neural_style(x, content, style, image):
    """The pixel range is 0..256.

    TVLoss has a gradient but no value. Every pixel with neighbours both to the right and below adds strength
    (x - right) and strength (x - below) to its gradient, and subtracts them from the gradients of these
    neighbours. This is the gradient of the sum that is computed here. It does not include pairs within the
    last row or the last column. The logged loss leaves it out. L-BFGS has no line search and uses only the
    gradient.
    """
    pixels = 256.0 * image
    here, right, below = pixels[:-1, :-1], pixels[:-1, 1:], pixels[1:, :-1]
    tv = 0.5 * 1e-3 * (((here - right) ** 2).sum() + ((here - below) ** 2).sum())
    return (*johnson_losses(x, content, style), tv)


def neural_style_pt(x, content, style, image, scale=255.0):
    """``scale`` is 256 in versions up to 2020. The logged total includes the total variation."""
    return (*johnson_losses(x, content, style), 1e-3 * absolute_variation(scale * image))


# Programs of the authors of the papers


def gatys_losses(x, content, style, content_weight, style_weight):
    """Return the weighted means of (F - P)² at relu4_2, and of (G/M - A/M_s)² summed over the style layers.

    ``style_weight`` is a function of N.
    """
    content_loss = content_weight * mean_square(x["conv4_2"], content["conv4_2"])
    style_loss = 0.0
    for layer in STYLE_LAYERS:
        f, s = x[layer], style[layer]
        difference = mean_square(raw_gram(f) / positions(f), raw_gram(s) / positions(s))
        style_loss += style_weight(f.shape[-1]) * difference
    return content_loss, style_loss


def gatys_pytorch(x, content, style, image):
    return (*gatys_losses(x, content, style, 1.0, lambda n: 1e3 / n**2), 0.0)


def gatys_normalised(x, content, style, image):
    """NeuralImageSynthesis with its parameters for the normalised network."""
    return (*gatys_losses(x, content, style, 1e6, lambda n: 1e9 / 5), 0.0)


def spst(x, content, style, image):
    """The losses of `gatys_pytorch`, plus mean square differences of means and standard deviations.

    The weight of both is 1e3 (wmeanstd / 100) = 1e4. The standard deviation of a channel is
    sqrt(G_ii/M - μ_i²), and no constant is added to the variance.
    """
    content_loss, style_loss, _ = gatys_pytorch(x, content, style, image)
    for layer in STYLE_LAYERS:
        (mean, deviation), (style_mean, style_deviation) = map(moments, (x[layer], style[layer]))
        style_loss += 1e4 * mean_square(mean, style_mean) + 1e4 * mean_square(deviation, style_deviation)
    return content_loss, style_loss, 0.0


def moments(features):
    mean = np.einsum("yxi->i", features) / positions(features)
    raw = np.einsum("yxi,yxi->i", features, features) / positions(features)
    return mean, np.sqrt(np.maximum(raw - mean**2, 0))


# crowsonkb/style-transfer-pytorch


def crowsonkb(x, content, style, image, root=None):
    """``root`` computes the root of a matrix, by default `newton_schulz`, whose limit is `exact_root`."""
    content_loss = 0.015 / 1 * mean_square(x["conv4_2"], content["conv4_2"])  # 0.015 over content layers
    weights = np.array([256.0, 64.0, 16.0, 4.0, 1.0])
    weights /= weights.sum()
    style_loss = 0.0
    for layer, weight in zip(STYLE_LAYERS, weights):
        style_loss += weight * wasserstein(x[layer], style[layer], root or newton_schulz)
    return content_loss, style_loss, 2.0 * nine_point_variation(image)


def wasserstein(features, style, root, eps=1e-4):
    """Return (1/N) (|μ - μ_s|² + tr(C + C_s - 2 (C_s^½ C C_s^½)^½)) with C = E[f fᵀ] - μ μᵀ + eps I.

    Both terms are means over the channels instead of the sum and the trace. For several styles the program
    first averages μ_s and E[f fᵀ] with the weights of the styles.
    """
    (mean, covariance), (style_mean, style_covariance) = (gaussian(f, eps) for f in (features, style))
    half = root(style_covariance)
    cross = root(half @ covariance @ half)
    return mean_square(mean, style_mean) + np.diag(covariance + style_covariance - 2 * cross).mean()


def gaussian(features, eps):
    mean = np.einsum("yxi->i", features) / positions(features)
    raw = raw_gram(features) / positions(features)
    return mean, raw - np.einsum("i,j->ij", mean, mean) + eps * np.eye(len(mean))


def newton_schulz(a, steps=12):
    """The approximate root of the program; the smallest eigenvalues do not converge within 12 steps."""
    norm = np.sqrt((a**2).sum())
    y, z, identity = a / norm, np.eye(len(a)), np.eye(len(a))
    for _ in range(steps):
        t = (3 * identity - z @ y) / 2
        y, z = y @ t, t @ z
    return y * np.sqrt(norm)


def exact_root(a):
    values, vectors = np.linalg.eigh((a + a.T) / 2)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def nine_point_variation(image):
    """Return 2 (mean dx² / 3 + mean dy² / 3 + mean d² / 12 of each diagonal) of an image in 0..1.

    The image is padded by replicating its border pixels once. There are H W differences dx and as many dy,
    one for each pixel; in the last column or row they are 0. The diagonal differences are those of every
    block of 2 x 2 pixels of the padded image, (H + 1) (W + 1) in each direction.
    """
    p = np.pad(image, [(1, 1), (1, 1), (0, 0)], mode="edge")
    height, width, channels = image.shape
    dx = dy = falling = rising = 0.0
    for y in range(1, height + 1):
        for x in range(1, width + 1):
            dx += ((p[y, x + 1] - p[y, x]) ** 2).sum() / (height * width * channels)
            dy += ((p[y + 1, x] - p[y, x]) ** 2).sum() / (height * width * channels)
    blocks = (height + 1) * (width + 1) * channels
    for y in range(height + 1):
        for x in range(width + 1):
            falling += ((p[y + 1, x + 1] - p[y, x]) ** 2).sum() / blocks
            rising += ((p[y + 1, x] - p[y, x + 1]) ** 2).sum() / blocks
    return 2 * (dx / 3 + dy / 3 + falling / 12 + rising / 12)


# The TensorFlow programs


def neural_style_tf(x, content, style, image):
    """The program of cysmith, whose content layer is conv4_2 before the ReLU, with its first content loss.

    M of the style loss is the number of positions of the style image, which the program resizes to the size
    of the content image.
    """
    f, p = x["conv4_2"], content["conv4_2"]
    n, m = f.shape[-1], positions(f)
    content_loss = 5.0 * ((f - p) ** 2).sum() / (2 * n**0.5 * m**0.5)
    style_loss = 0.0
    for layer in STYLE_LAYERS:
        n, m = style[layer].shape[-1], positions(style[layer])
        g, a = raw_gram(x[layer]), raw_gram(style[layer])
        style_loss += 0.2 * ((g - a) ** 2).sum() / (4 * n**2 * m**2)
    # The layer weights add up to 1, and the sum is divided by the number of layers as well.
    return content_loss, 1e4 * style_loss / len(STYLE_LAYERS), 1e-3 * absolute_variation(255.0 * image)


def anishathalye(x, content, style, image):
    """The program also has the content layer relu5_2, whose weight is 0 by default."""
    content_loss = 5.0 * mean_square(x["conv4_2"], content["conv4_2"])
    style_loss = 0.0
    for layer in STYLE_LAYERS:
        f, s = x[layer], style[layer]
        style_loss += 500.0 / len(STYLE_LAYERS) * mean_square(raw_gram(f) / f.size, raw_gram(s) / s.size)
    height, width, channels = image.shape
    down, right = sums_of_differences(255.0 * image, 2)
    tv = down / ((height - 1) * width * channels) + right / (height * (width - 1) * channels)
    return content_loss, style_loss, 100.0 * tv


def tensorflow_tutorial(x, content, style, image):
    """The total variation is that of the image in 0..1. The first run of the tutorial does not use it."""
    content_loss = 1e4 / 1 * mean_square(x["conv5_2"], content["conv5_2"])
    style_loss = 0.0
    for layer in STYLE_LAYERS:
        f, s = x[layer], style[layer]
        style_loss += mean_square(raw_gram(f) / positions(f), raw_gram(s) / positions(s))
    return content_loss, 1e-2 / len(STYLE_LAYERS) * style_loss, 30.0 * absolute_variation(image)


PROGRAMS = {
    "neural-style": neural_style,
    "neural-style-pt": neural_style_pt,
    "gatys-pytorch": gatys_pytorch,
    "gatys-normalised": gatys_normalised,
    "crowsonkb": crowsonkb,
    "neural-style-tf": neural_style_tf,
    "anishathalye": anishathalye,
    "tensorflow-tutorial": tensorflow_tutorial,
    "spst": spst,
}

"""Slow definitions in NumPy and float64, written from the papers, with which the package is compared."""

import numpy as np

MEAN_BGR = np.array([103.939, 116.779, 123.68])
PAD_MODE = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def conv_relu(image, kernel, bias, padding):
    """Return the 3 x 3 convolution of ``[height, width, channels]``, followed by a ReLU."""
    padded = np.pad(image, [(1, 1), (1, 1), (0, 0)], mode=PAD_MODE[padding])
    height, width = image.shape[:2]
    out = np.zeros((height, width, kernel.shape[-1]))
    for y in range(height):
        for x in range(width):
            patch = padded[y : y + 3, x : x + 3]
            out[y, x] = np.einsum("abc,abcd->d", patch, kernel.astype(np.float64)) + bias
    return np.maximum(out, 0)


def pool(features, pooling):
    """Return 2 x 2 pooling with stride 2, without an odd last row or column."""
    height, width, channels = features.shape
    out = np.zeros((height // 2, width // 2, channels))
    for y in range(height // 2):
        for x in range(width // 2):
            block = features[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(4, channels)
            out[y, x] = block.mean(0) if pooling == "avg" else block.max(0)
    return out


def features(image, arrays, upto, pooling="avg", padding="zeros"):
    """Return the features of the first ``upto`` convolutions for an RGB image in 0..1."""
    current = image.astype(np.float64)[..., ::-1] * 255 - MEAN_BGR
    out = []
    names = sorted({key.partition("/")[0] for key in arrays})[:upto]
    for i, name in enumerate(names):
        if i and name[5] != names[i - 1][5]:
            current = pool(current, pooling)
        current = conv_relu(current, arrays[f"{name}/kernel"], arrays[f"{name}/bias"], padding)
        out.append(current)
    return out


def gram(features):
    """Return the Gram matrix of ``[height, width, N]``: the means over positions of products of channels."""
    height, width, channels = features.shape
    out = np.zeros((channels, channels))
    for i in range(channels):
        for j in range(channels):
            out[i, j] = (features[..., i].astype(np.float64) * features[..., j]).sum()
    return out / (height * width)


def content_loss(f, p):
    return 0.5 * ((f.astype(np.float64) - p) ** 2).sum()


def style_loss(g, a):
    n = g.shape[0]
    return ((g.astype(np.float64) - a) ** 2).sum() / (4 * n**2)


def total_variation(image):
    height, width, channels = image.shape
    down = sum(
        (float(image[y + 1, x, c]) - image[y, x, c]) ** 2
        for y in range(height - 1) for x in range(width) for c in range(channels)
    )  # fmt: skip
    right = sum(
        (float(image[y, x + 1, c]) - image[y, x, c]) ** 2
        for y in range(height) for x in range(width - 1) for c in range(channels)
    )  # fmt: skip
    return down / ((height - 1) * width * channels) + right / (height * (width - 1) * channels)


def relative_error(a, b):
    """Return the L2 norm of the difference, divided by the L2 norm of b."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)

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


def local_spectrum(image, mask=None, side=32):
    """Return the mean log power of windows by wave number, 3 to 15, from the definition of the transform."""
    half = side // 2
    luminance = image @ np.array([0.299, 0.587, 0.114])
    weights = np.ones(luminance.shape) if mask is None else mask

    def mirror(index, length):
        return -index if index < 0 else 2 * (length - 1) - index if index >= length else index

    def spread(length):  # the indices of an axis, with the reflected pixels
        after = half + (-length) % half
        return [mirror(i, length) for i in range(-half, length + after)]

    rows, columns = (spread(length) for length in luminance.shape)
    luminance, weights = (plane[np.ix_(rows, columns)] for plane in (luminance, weights))
    k = np.arange(side)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * k / side)
    dft = np.exp(-2j * np.pi * np.outer(k, k) / side)
    signed = np.where(k < half, k, k - side)
    radius = np.rint(np.hypot(signed[:, None], signed))
    logs, counts = [], []
    for top in range(0, len(rows) - side + 1, half):
        for left in range(0, len(columns) - side + 1, half):
            part = np.s_[top : top + side, left : left + side]
            window = (luminance[part] - luminance[part].mean()) * np.outer(hann, hann)
            power = np.abs(dft @ window @ dft.T) ** 2
            logs.append([np.log(power[radius == r] + 1e-4).mean() for r in range(3, 16)])
            counts.append(weights[part].mean())
    return np.average(logs, axis=0, weights=counts)

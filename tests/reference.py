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
    luminance = image @ np.array([0.299, 0.587, 0.114])
    weights = np.ones(luminance.shape) if mask is None else mask
    height, width = luminance.shape
    k = np.arange(side)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * k / side)
    dft = np.exp(-2j * np.pi * np.outer(k, k) / side)
    signed = np.where(k < side // 2, k, k - side)
    radius = np.rint(np.hypot(signed[:, None], signed))
    logs, counts = [], []
    for top in range(0, height - side + 1, 8):
        for left in range(0, width - side + 1, 8):
            part = np.s_[top : top + side, left : left + side]
            window = (luminance[part] - luminance[part].mean()) * np.outer(hann, hann)
            power = np.abs(dft @ window @ dft.T) ** 2
            logs.append([np.log(power[radius == r] + 1e-4).mean() for r in range(3, 16)])
            counts.append(weights[part].mean())
    return np.average(logs, axis=0, weights=counts)


def gaussian_divergence(mean_x, covariance_x, mean_s, covariance_s, count=400_000):
    """Return the Kullback-Leibler divergence of N(x) from N(s) as a mean of log p_x - log p_s over N(x)."""
    points = np.random.default_rng(0).multivariate_normal(mean_x, covariance_x, count)

    def log_density(mean, covariance):
        total = 0.0
        variances, axes = np.linalg.eigh(covariance)
        for variance, axis in zip(variances, axes.T, strict=True):
            along = (points - mean) @ axis
            total = total - 0.5 * (along**2 / variance + np.log(2 * np.pi * variance))
        return total

    return (log_density(mean_x, covariance_x) - log_density(mean_s, covariance_s)).mean()


def self_similarity(features):
    """Return the cosine distances between every fourth position, each column divided by its sum."""
    vectors = [features[y, x].astype(np.float64)
               for y in range(0, features.shape[0], 4) for x in range(0, features.shape[1], 4)]  # fmt: skip
    return self_distances(vectors)


def self_distances(vectors):
    """Return cosine distances of vectors, each column divided by its sum; those of a zero vector are 1."""
    out = np.ones((len(vectors), len(vectors)))
    for i, a in enumerate(vectors):
        for j, b in enumerate(vectors):
            if a.any() and b.any():
                out[i, j] = 1 - a @ b / np.sqrt((a @ a) * (b @ b))
    for j in range(len(vectors)):
        if out[:, j].sum() > 0:
            out[:, j] /= out[:, j].sum()
    return out


def self_similarity_loss(vectors, content_vectors):
    """Return the mean difference between the distances of two sets of vectors, times their number."""
    difference = self_distances(vectors) - self_distances(content_vectors)
    return np.mean(np.abs(difference)) * len(vectors)


def self_similarity_distance(f, c):
    d_f, d_c = self_similarity(f), self_similarity(c)
    return np.mean(np.abs(d_f - d_c)) * len(d_f)


def energy_distance(x, y):
    """Return the energy distance of two sets of vectors, with channels of root mean square 1 over ``y``."""
    scale = np.sqrt((y.astype(np.float64) ** 2).mean(0))

    def mean_distance(a, b):
        return np.mean([np.linalg.norm((p - q) / scale) for p in a for q in b])

    return 2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y)


def ripple(image, n=32):
    """Return the largest residual of the log power spectrum at 6 .. 14 cycles per window of 32 pixels."""
    y = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n)
    logs = []
    for top in range(0, y.shape[0] - n + 1, n // 2):
        for left in range(0, y.shape[1] - n + 1, n // 2):
            window = y[top : top + n, left : left + n]
            window = (window - window.mean()) * np.outer(hann, hann)
            logs.append(np.log(np.abs(waves @ window @ waves.T) ** 2 + 1e-12))
    log_power, rings = np.mean(logs, 0), {k: [] for k in range(1, 16)}
    for v in range(n):
        for u in range(n):
            k = round(np.hypot(min(v, n - v), min(u, n - u)))
            if k in rings:
                rings[k].append(log_power[v, u])
    means = {k: np.mean(ring) for k, ring in rings.items()}
    design = np.array([[1, np.log(k), np.log(k) ** 2] for k in range(3, 16)])
    fit = np.linalg.lstsq(design, np.array([means[k] for k in range(3, 16)]), rcond=None)[0]
    return max(means[k] - fit @ [1, np.log(k), np.log(k) ** 2] for k in range(6, 15))


def nearest_distance(x, s, weights=None, allowed=None):
    """Return the mean over vectors x of the smallest cosine distance from vectors s; both are centred."""
    weights = np.ones(len(x)) if weights is None else weights
    s = s if allowed is None else s[allowed]
    x = x - sum(w * v for w, v in zip(weights, x)) / weights.sum()
    s = s - sum(s) / len(s)
    distances = [min(1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in s) for a in x]
    return sum(w * d for w, d in zip(weights, distances)) / weights.sum()


def bilinear(image, height, width):
    """Return an image ``[h, w, N]`` resized with half-pixel centres, by loops over the pixels."""
    result = np.zeros((height, width, image.shape[2]))
    for i in range(height):
        for j in range(width):
            y = (i + 0.5) * image.shape[0] / height - 0.5
            x = (j + 0.5) * image.shape[1] / width - 0.5
            top, left = int(np.floor(y)), int(np.floor(x))
            for row, share in ((top, 1 - (y - top)), (top + 1, y - top)):
                for column, part in ((left, 1 - (x - left)), (left + 1, x - left)):
                    inside = np.clip(row, 0, image.shape[0] - 1), np.clip(column, 0, image.shape[1] - 1)
                    result[i, j] += share * part * image[inside]
    return result


def hypercolumns(maps, height, width):
    """Return the hypercolumns ``[height, width, ΣN]`` of feature maps ``[h, w, N]`` of an image."""
    return np.concatenate([bilinear(m / m.shape[2], height, width) for m in maps], 2)


def laplacian_pyramid(image, levels):
    """Return the levels of detail of an image ``[h, w, N]``, and the remaining image."""
    details = []
    for _ in range(levels):
        smaller = bilinear(image, max(1, image.shape[0] // 2), max(1, image.shape[1] // 2))
        details.append(image - bilinear(smaller, *image.shape[:2]))
        image = smaller
    return [*details, image]


def joint_bilateral(values, guide):
    """Return means over 3 x 3 neighbourhoods, weighted by exp(-10 |difference of the guide|), by loops."""
    height, width = guide.shape
    result = np.zeros_like(values)
    for i in range(height):
        for j in range(width):
            total = 0.0
            for a in (-1, 0, 1):
                for b in (-1, 0, 1):
                    at = min(max(i + a, 0), height - 1), min(max(j + b, 0), width - 1)
                    weight = np.exp(-10 * abs(guide[at] - guide[i, j]))
                    result[i, j] += weight * values[at]
                    total += weight
            result[i, j] /= total
    return result


def patches(features, size, stride, circular=False):
    """Return the patches of ``[h, w, N]``, each flattened. The last one of each side ends at the border."""
    starts = []
    for side in features.shape[:2]:
        last = side - 1 if circular else side - size
        along = [i for i in range(side) if i % stride == 0 and i <= last]
        starts.append(along if circular or last in along else [*along, last])
    out = []
    for y in starts[0]:
        for x in starts[1]:
            patch = [
                features[(y + i) % features.shape[0], (x + j) % features.shape[1]]
                for i in range(size) for j in range(size)
            ]  # fmt: skip
            out.append(np.concatenate(patch))
    return np.array(out, np.float64)


def patch_distances(texture, style):
    """Return (1 - cos) / 2 of all pairs of patches, after the mean style patch is subtracted from them."""
    mean = sum(style) / len(style)
    out = np.zeros((len(texture), len(style)))
    for i, x in enumerate(texture):
        for j, y in enumerate(style):
            a, b = x - mean, y - mean
            out[i, j] = (1 - (a * b).sum() / (np.sqrt((a**2).sum()) * np.sqrt((b**2).sum()))) / 2
    return out


def guided_correspondence(texture, style, guidance=None, avoid_repetition=0.0):
    """Return mean_i -log max_j softmax_j((1 - d_ij / (min_j d_ij + 1e-5)) / 0.5)."""
    distances = patch_distances(texture, style)
    if guidance is not None:
        for i, t in enumerate(guidance[0]):
            for j, s in enumerate(guidance[1]):
                distances[i, j] += ((t - s) ** 2).sum()
    counts = np.zeros(len(style))
    for row in distances:
        counts[row.argmin()] += 1
    distances = distances + avoid_repetition * counts / max(len(texture) / len(style), 1)
    total = 0.0
    for row in distances:
        weights = np.exp((1 - row / (row.min() + 1e-5)) / 0.5)
        total -= np.log(weights.max() / weights.sum())
    return total / len(texture)

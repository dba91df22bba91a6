"""Train an image transformation network with the content and style losses, after Johnson et al.

``python examples/perceptual_loss.py [STYLE] [WEIGHTS] [STEPS] [SIZE] [OUTPUT]`` trains a small network on
random crops of two images, so that its output has the content of its input and the style of STYLE. The
example shows how the losses are used, and takes only a few steps. After a longer training on many images,
such a network transfers the style to any image in a single pass. The example prints the mean loss of every 20
steps, and saves an image and the network's output for it side by side.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfstyle
from tfstyle.images import ImageArray, load, save

EXAMPLES = Path(__file__).parent
CONTENTS = (EXAMPLES / "village.jpg", EXAMPLES.parent / "tfstyle" / "data" / "cat.jpg")
BATCH = 4
CONTENT_WEIGHT = 0.05  # relative to the style loss


def image_network() -> keras.Model:
    """Return an untrained network that adds a change, which is zero before training, to its input images.

    The three residual blocks run at a quarter of the height and width, with instance normalisation.
    """
    layers = keras.layers

    def convolution(x: tf.Tensor, channels: int, size: int = 3, strides: int = 1) -> tf.Tensor:
        x = layers.Conv2D(channels, size, strides=strides, padding="same")(x)
        return layers.ReLU()(layers.GroupNormalization(groups=-1)(x))

    images = keras.Input((None, None, 3))
    x = convolution(images, 16, size=9)
    x = convolution(convolution(x, 32, strides=2), 64, strides=2)
    for _ in range(3):
        x = layers.add([x, layers.Conv2D(64, 3, padding="same")(convolution(x, 64))])
    for channels in (32, 16):
        x = convolution(layers.UpSampling2D(interpolation="bilinear")(x), channels)
    change = layers.Conv2D(3, 9, padding="same", kernel_initializer="zeros")(x)
    return keras.Model(images, layers.add([images, change]))


def crops(size: int) -> Iterator[np.ndarray]:
    """Yield random crops of the content images, float32 ``[size, size, 3]`` in 0..1, without end."""
    generator = np.random.default_rng(0)
    images = [load(path).fitted(3 * size).on_white() for path in CONTENTS]
    while True:
        image = images[generator.integers(len(images))]
        top, left = (generator.integers(0, side - size + 1) for side in image.shape[:2])
        yield image[top : top + size, left : left + size]


def main(
    style: str = str(EXAMPLES / "evening.jpg"),
    weights: str = "auto",
    steps: str = "400",
    size: str = "96",
    output: str = "perceptual_loss.png",
) -> None:
    """Train the network and save one of its outputs.

    Args:
        style: the style image.
        weights: the encoder's weights, as for `tfstyle.Encoder`.
        steps: number of training steps, each with four crops, rounded down to a multiple of 20 if it is above
            20.
        size: height and width of the crops in pixels, a multiple of 4.
        output: path of the image file.
    """
    keras.utils.set_random_seed(0)
    encoder = tfstyle.Encoder(("conv1_1", "conv2_1", "conv2_2", "conv3_1"), weights)
    content_loss = tfstyle.ContentLoss(encoder, layers=["conv2_2"])
    style_loss = tfstyle.GramStyleLoss(encoder, style, size=3 * int(size))

    def loss(images: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return CONTENT_WEIGHT * content_loss(images, outputs) + style_loss(images, outputs)

    signature = tf.TensorSpec([int(size), int(size), 3], tf.float32)
    dataset = tf.data.Dataset.from_generator(lambda: crops(int(size)), output_signature=signature)
    dataset = dataset.batch(BATCH).map(lambda images: (images, images))  # y_true is the input

    network = image_network()
    network.compile(keras.optimizers.Adam(5e-4), loss)
    per_epoch = min(20, int(steps))
    network.fit(dataset, steps_per_epoch=per_epoch, epochs=int(steps) // per_epoch, verbose=2)

    image = load(CONTENTS[0]).fitted(3 * int(size)).on_white()
    image = image[: image.shape[0] // 4 * 4, : image.shape[1] // 4 * 4]
    painted = network.predict(image[None], verbose=0)[0].clip(0, 1)
    save(Path(output), ImageArray(np.concatenate([image, painted], 1)), overwrite=True)
    print(output)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The compiled step with a custom objective: an image that maximises the activation of one channel.

``python examples/custom_objective.py [WEIGHTS] [SIZE] [STEPS]`` starts from grey noise and optimises the
image such that the mean activation of one channel of conv2_2 becomes large. An objective is a function of an
image and of targets that returns a dict of scalars, of which ``total`` is minimised. The target here is the
number of the channel.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

import tfstyle
from tfstyle.images import ImageArray, save


def main(
    weights: str = "auto", size: str = "128", steps: str = "200", output: str = "what_filters_like.png"
) -> None:
    """Optimise one image for each of four channels and save the images side by side.

    Args:
        weights: the encoder's weights, as for `tfstyle.Encoder`.
        size: height and width of each image in pixels.
        steps: number of optimisation steps for each channel.
        output: path of the image file.
    """
    encoder = tfstyle.Encoder(("conv2_2",), weights)

    def objective(image: tf.Tensor, channel: tf.Tensor) -> dict[str, tf.Tensor]:
        activation = tf.reduce_mean(encoder(image)["conv2_2"][..., channel])
        return {"total": 10.0 * tfstyle.total_variation(image) - activation / 100.0, "activation": activation}

    optimizer = tfstyle.adam(learning_rate=0.02)
    step = tfstyle.make_step(objective, optimizer)  # traced once and reused for all four channels
    images = []
    for channel in tf.range(0, 128, 32):
        noise = np.random.default_rng(0).normal(0.5, 0.05, (1, int(size), int(size), 3))
        image = tf.constant(noise.clip(0, 1), tf.float32)
        state = optimizer.init(image)
        for _ in range(int(steps)):
            image, state, terms = step(image, state, channel)
        print(f"channel {int(channel)}: mean activation {float(terms['activation']):.1f}")
        images.append(image[0].numpy())
    save(Path(output), ImageArray(np.concatenate(images, 1)), overwrite=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

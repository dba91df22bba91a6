"""The compiled step on an objective of one's own: what does a filter like to see?

``python examples/custom_objective.py [WEIGHTS] [SIZE] [STEPS]`` starts from grey noise and moves the
picture so that one channel of conv2_2 fires as much as it can. An objective is a function of an image
and of targets, here the channel's number, that returns a dict with ``total``.
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
    """Write a row of pictures, one for each of four channels."""
    encoder = tfstyle.Encoder(("conv2_2",), weights)

    def objective(image: tf.Tensor, channel: tf.Tensor) -> dict[str, tf.Tensor]:
        activation = tf.reduce_mean(encoder(image)["conv2_2"][..., channel])
        return {"total": 10.0 * tfstyle.total_variation(image) - activation / 100.0, "activation": activation}

    optimizer = tfstyle.adam(learning_rate=0.02)
    step = tfstyle.make_step(objective, optimizer)  # traced once, for all four channels
    pictures = []
    for channel in tf.range(0, 128, 32):
        noise = np.random.default_rng(0).normal(0.5, 0.05, (1, int(size), int(size), 3))
        image = tf.constant(noise.clip(0, 1), tf.float32)
        state = optimizer.init(image)
        for _ in range(int(steps)):
            image, state, terms = step(image, state, channel)
        print(f"channel {int(channel)}: mean activation {float(terms['activation']):.1f}")
        pictures.append(image[0].numpy())
    save(Path(output), ImageArray(np.concatenate(pictures, 1)), overwrite=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

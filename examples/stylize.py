"""Style transfer from Python, with a progress callback: ``python examples/stylize.py [WEIGHTS] [SIZE]``."""

import sys
from pathlib import Path

import tfstyle

HERE = Path(__file__).parent


def main(weights: str = "auto", size: str = "512", output: str = "village_at_evening.png") -> None:
    """Transfer the style of evening.jpg to village.jpg and save the result.

    Args:
        weights: the encoder's weights, as for `tfstyle.stylize`.
        size: longest side of the result in pixels.
        output: path of the result, relative to the current folder.
    """

    def show(step: tfstyle.Iteration) -> None:
        if step.iteration == step.iterations:
            height, width = step.shape
            print(f"{width} x {height}: loss {step.losses['total']:.4f} after {step.seconds:.0f} s")

    result = tfstyle.stylize(
        HERE / "village.jpg", HERE / "evening.jpg", weights=weights, size=int(size), callback=show
    )
    result.save(output, overwrite=True)
    print(f"{output} was made with {result.facts['weights']} weights")


if __name__ == "__main__":
    main(*sys.argv[1:])

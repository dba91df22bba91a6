"""Style transfer from Python, with progress: ``python examples/stylize.py [WEIGHTS] [SIZE]``."""

import sys
from pathlib import Path

import tfstyle

HERE = Path(__file__).parent


def main(weights: str = "auto", size: str = "512", output: str = "village_at_evening.png") -> None:
    """Paint the village as the evening is painted, and write it beside where you are."""

    def show(step: tfstyle.Iteration) -> None:
        if step.iteration == step.iterations:
            height, width = step.shape
            print(f"{width} x {height}: loss {step.losses['total']:.4f} after {step.seconds:.0f} s")

    result = tfstyle.stylize(
        HERE / "village.jpg", HERE / "evening.jpg", weights=weights, size=int(size), callback=show
    )
    result.save(output, overwrite=True)
    print(f"{output}, with {result.facts['weights']} weights")


if __name__ == "__main__":
    main(*sys.argv[1:])

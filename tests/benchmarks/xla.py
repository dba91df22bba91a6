"""The compiled step as a program for XLA: ``python -m tests.benchmarks.xla [-o FOLDER]``.

For each size the script writes the StableHLO of the bfloat16 step, the inputs in the order of the entry
signature, and the losses that this machine's processor computes. It then times the step. If TensorFlow has a
GPU, the step is timed through TensorFlow. Otherwise it is timed through JAX (`xla_time.py`) on JAX's first
device, a GPU or a processor. If JAX is not installed, the script prints how to time the step elsewhere. A
machine without TensorFlow needs only FOLDER and `xla_time.py`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tests.benchmarks import machine
from tests.benchmarks.step import convolution_operations, make_call, make_matmul, make_problem, medians

SIZES = (512, 1024, 2048)
LOSSES = 3  # evaluations whose loss is stored
TIMER = Path(__file__).with_name("xla_time.py")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="write the programs here [a temporary folder]"
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, help="sides of the image in pixels [512 1024 2048]"
    )
    parser.add_argument(
        "--padding", default="reflect", choices=("reflect", "zeros"), help="of the convolutions [%(default)s]"
    )
    parser.add_argument(
        "--jax", default=sys.executable, metavar="PYTHON", help="a Python interpreter that has JAX [this one]"
    )
    options = parser.parse_args()
    print(machine.line(), flush=True)
    if sees_gpu():
        time_tensorflow(options.sizes, options.padding)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for size in options.sizes:
            program = write(folder, size, *make_problem(size, padding=options.padding))
            operations = convolution_operations(size)
            print(
                f"{program.name}: {len(entry(program.read_text()))} parameters, {operations / 1e12:.2f} TFLOP"
            )
        if not sees_gpu():
            time_jax(folder, options.jax)


def sees_gpu() -> bool:
    """Return whether TensorFlow has a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def write(folder: Path, size: int, objective, content, targets) -> Path:
    """Write the program step_SIZE.mlir, its inputs step_SIZE.npz, and their description step_SIZE.json.

    Args:
        folder: an existing folder.
        size: side of the image in pixels, for the names and the number of operations.
        objective, content, targets: as `make_problem` returns them.

    Returns:
        The path of the program.
    """
    import tensorflow as tf

    from tfstyle import lbfgs, make_step

    optimizer = lbfgs()
    state = optimizer.init(content)
    step = make_step(objective, optimizer, compile="xla")
    given = (content, state, targets)
    program = step.experimental_get_compiler_ir(*given)(stage="stablehlo")
    traced = step.get_concrete_function(*given)
    # The last parameters of the program are the values of the variables that the step has captured.
    values = {id(variable.handle): variable for variable in traced.variables}
    captured = [values[id(handle)] for handle in traced.captured_inputs]
    arguments = [np.asarray(argument) for argument in [*tf.nest.flatten(given), *captured]]
    check_signature(program, arguments)
    outputs = tf.nest.flatten(traced.structured_outputs)
    arrays, parameters = stored(arguments)
    facts = {
        "size": size,
        "arrays": f"step_{size}.npz",
        "parameters": parameters,
        "fed_back": len(tf.nest.flatten(given[:2])),
        "total": [id(output) for output in outputs].index(id(traced.structured_outputs[2]["total"])),
        "operations": convolution_operations(size),
        "losses": processor_losses(objective, optimizer, *given),
        "machine": machine.line(),
    }
    np.savez(folder / facts["arrays"], **arrays)
    (folder / f"step_{size}.json").write_text(json.dumps(facts, indent=1))
    path = folder / f"step_{size}.mlir"
    path.write_text(program)
    return path


def check_signature(program: str, arguments: list[np.ndarray]) -> None:
    """Check that the arguments have the shapes and types of the program's parameters.

    Raises:
        ValueError: their number, a shape or a type differs.
    """
    names = {"float32": "f32", "bfloat16": "bf16"}
    given = [(a.shape, names.get(a.dtype.name, a.dtype.name)) for a in arguments]
    if given != entry(program):
        raise ValueError(
            f"the inputs {given} do not fit the program's parameters {entry(program)}; "
            "give one input for each parameter, with its shape and type"
        )


def stored(arguments: list[np.ndarray]) -> tuple[dict[str, np.ndarray], list[dict]]:
    """Return the arrays to store and the description of each parameter.

    Arrays are stored as bytes, because NumPy's files have no bfloat16. A parameter whose elements are all
    equal is described by that number, because most of an optimiser's initial state is zero.

    Returns:
        Name -> bytes as uint8, and for each parameter its shape, its type, and the name of its array
        (``key``) or the number that fills it (``fill``).
    """
    arrays: dict[str, np.ndarray] = {}
    known: dict[bytes, str] = {}
    parameters = []
    for array in arguments:
        facts = {"shape": list(array.shape), "dtype": array.dtype.name}
        if (array == array.flat[0]).all():
            facts["fill"] = float(array.flat[0])
        else:
            raw = array.tobytes()
            facts["key"] = known.setdefault(raw, f"a{len(known)}")
            arrays[facts["key"]] = np.frombuffer(raw, np.uint8)
        parameters.append(facts)
    return arrays, parameters


def processor_losses(objective, optimizer, image, state, targets) -> list[float]:
    """Return the losses of the first steps, computed by TensorFlow's graph on the processor."""
    import tensorflow as tf

    from tfstyle import make_step

    losses = []
    with tf.device("/CPU:0"):
        step = make_step(objective, optimizer, compile="graph")
        for _ in range(LOSSES):
            image, state, terms = step(image, state, targets)
            losses.append(float(terms["total"]))
    return losses


def entry(program: str) -> list[tuple[tuple[int, ...], str]]:
    """Return the shape and element type of each parameter of the function ``main`` of a StableHLO text.

    Raises:
        ValueError: the text has no function ``main``.
    """
    signature = re.search(r"func\.func (?:public )?@main\((.*?)\) -> ", program, re.DOTALL)
    if signature is None:
        raise ValueError("the program has no function @main; give the StableHLO text of a whole module")
    types = re.findall(r"%arg\d+: tensor<((?:\d+x)*)(\w+)>", signature[1])
    return [(tuple(int(n) for n in shape.split("x") if n), element) for shape, element in types]


def time_tensorflow(sizes, padding: str) -> None:
    """Time the step through TensorFlow's XLA and print a table.

    Its columns are the step's milliseconds and TFLOP/s, the TFLOP/s of matrix products of two sizes, and the
    step's share of the faster one.
    """
    print("| size | ms | TFLOP/s | matmul 4096 | matmul 8192 | share |\n|---|---|---|---|---|---|")
    for size in sizes:
        calls = [make_call(size, compile="xla", padding=padding), make_matmul(4096), make_matmul(8192)]
        seconds, *products = medians(calls, 50)
        rate = convolution_operations(size) / seconds / 1e12
        rates = [2 * side**3 / s / 1e12 for side, s in zip((4096, 8192), products, strict=True)]
        cells = (
            f"{1e3 * seconds:.2f} | {rate:.3g} | {rates[0]:.3g} | {rates[1]:.3g} | {rate / max(rates):.2f}"
        )
        print(f"| {size} | {cells} |", flush=True)


def time_jax(folder: Path, python: str) -> None:
    """Run `xla_time.py` with the given Python, or print how to do so if this Python has no JAX."""
    if python == sys.executable and importlib.util.find_spec("jax") is None:
        print(
            "The step was not timed: TensorFlow has no GPU, and JAX is not installed.\n"
            "Copy tests/benchmarks/xla_time.py and the FOLDER of -o to a machine with a GPU, and run there:\n"
            "  pip install 'jax[cuda12]' && python xla_time.py FOLDER\n"
            "Or give --jax a Python interpreter of this machine that has JAX."
        )
        return
    done = subprocess.run([python, str(TIMER), str(folder)], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()

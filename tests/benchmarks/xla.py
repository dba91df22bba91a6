"""The compiled step as a program for any XLA: ``python -m tests.benchmarks.xla [-o FOLDER]``.

Writes the StableHLO of the bfloat16 step, its inputs in the order of the entry signature, and the losses
that this machine's processor has, for each size. Then times it: through TensorFlow where that sees a GPU;
else through JAX (`xla_time.py`) where that is installed, on a GPU or, so that it can be tried, on the
processor; else it says how. FOLDER can be carried with that one file to a machine without TensorFlow.
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
LOSSES = 3  # evaluations whose loss is kept
TIMER = Path(__file__).with_name("xla_time.py")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="[thrown away]")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--padding", default="reflect", choices=("reflect", "zeros"))
    parser.add_argument("--jax", default=sys.executable, metavar="PYTHON", help="the Python that has JAX")
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
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def write(folder: Path, size: int, objective, content, targets) -> Path:
    """Write step_SIZE.mlir, its inputs and its facts.

    Args:
        folder: that is there.
        size: for the names.
        objective, content, targets: as `make_problem` gives them.

    Returns:
        the program's path.
    """
    import tensorflow as tf

    from tfstyle import lbfgs, make_step

    optimizer = lbfgs()
    state = optimizer.init(content)
    step = make_step(objective, optimizer, compile="xla")
    given = (content, state, targets)
    program = step.experimental_get_compiler_ir(*given)(stage="stablehlo")
    traced = step.get_concrete_function(*given)
    # Variables that the step has captured come last, as their values.
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
    """Raise ValueError where the program's parameters are not of the arguments' shapes and types."""
    names = {"float32": "f32", "bfloat16": "bf16"}
    given = [(a.shape, names.get(a.dtype.name, a.dtype.name)) for a in arguments]
    if given != entry(program):
        raise ValueError(f"the program takes {entry(program)}, and the inputs are {given}")


def stored(arguments: list[np.ndarray]) -> tuple[dict[str, np.ndarray], list[dict]]:
    """The arrays to keep, as bytes, and what each parameter is: one of them, or filled with a number.

    NumPy's files know no bfloat16, and most of an optimiser's first state is zero.
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
    """The losses of the first steps on the processor, where oneDNN's graph is the fast one."""
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
    """Shape and element type of each parameter of a StableHLO text's ``main``."""
    signature = re.search(r"func\.func (?:public )?@main\((.*?)\) -> ", program, re.DOTALL)
    if signature is None:
        raise ValueError("the program has no function @main")
    types = re.findall(r"%arg\d+: tensor<((?:\d+x)*)(\w+)>", signature[1])
    return [(tuple(int(n) for n in shape.split("x") if n), element) for shape, element in types]


def time_tensorflow(sizes, padding: str) -> None:
    """The same table as JAX's through TensorFlow's own XLA."""
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
    """Run `xla_time.py` in a Python that has JAX; say how where none has."""
    here = python == sys.executable
    if here and importlib.util.find_spec("jax") is None:
        print(
            "not timed: TensorFlow sees no GPU and JAX is not installed. On a machine with a GPU:\n"
            "  pip install 'jax[cuda12]' && python xla_time.py FOLDER\n"
            "with tests/benchmarks/xla_time.py and the FOLDER that -o wrote; or here with --jax PYTHON"
        )
        return
    done = subprocess.run([python, str(TIMER), str(folder)], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()

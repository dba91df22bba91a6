"""A client of a tfstyle model in TensorFlow Serving, over REST. It needs only the standard library.

::

    python rest.py embed one.jpg two.jpg three.jpg
    python rest.py stylize content.jpg style.jpg -o out.png --steps 50
    python rest.py status

`stylize` needs Pillow to read and write images. `embed` sends the files as they are. Exit codes: 0 done; 1
the server cannot be reached or has failed; 2 the command line or an input is wrong, or the server refuses the
request.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import itertools
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

DONE, FAILED, WRONG_INPUT = 0, 1, 2
REFUSED = (400, 404, 413)  # HTTP status codes of a request that the server does not accept
MAX_TIMEOUT = 10**6  # seconds; sockets store milliseconds in 32 bits


class ClientError(Exception):
    """An error with a message of one line for the user and an exit code."""

    def __init__(self, message: str, code: int = WRONG_INPUT) -> None:
        super().__init__(" ".join(message.split())[:600])
        self.code = code


class Client(Protocol):
    """The requests to a server that the commands below make."""

    def status(self) -> list[tuple[int, str]]:
        """Return the number and the state of each version that the server has."""

    def embedding(self, file: bytes) -> Sequence[float]:
        """Return the embedding of an image file, a vector of unit length."""

    def stylize(self, content: Any, style: Any, steps: int) -> tuple[Any, float]:
        """Return the content image in the style of the style image, and the loss.

        Images are RGB images of Pillow.
        """


class Rest:
    """Requests to ``URL/v1/models/MODEL``.

    Args:
        url: address of the server, such as ``http://127.0.0.1:8501``.
        model: name of the model on the server.
        timeout: seconds to wait for each reply.

    Raises:
        ClientError: the URL does not start with http:// or https://; and in every method, the server cannot
            be reached, has failed, or refuses the request.
    """

    def __init__(self, url: str, model: str, timeout: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise ClientError(f"--url is {url!r}; it must start with http:// or https://")
        self._url = f"{url.rstrip('/')}/v1/models/{urllib.parse.quote(model, safe='')}"
        self._timeout = timeout

    def status(self) -> list[tuple[int, str]]:
        """Return the number and the state of each version that the server has."""
        versions = self._reply("", "model_version_status")
        return [(int(entry["version"]), entry["state"]) for entry in versions]

    def embedding(self, file: bytes) -> Sequence[float]:
        """Return the embedding of an image file from the signature encoded. JSON carries bytes as base64."""
        code = base64.b64encode(file).decode("ascii")
        return self._predict("encoded", {"images": [{"b64": code}]})["embedding"][0]

    def stylize(self, content: Any, style: Any, steps: int) -> tuple[Any, float]:
        """Return the image and the loss from the signature stylize. JSON carries pixels as nested lists."""
        inputs = {"content": [_rows(content)], "style": [_rows(style)], "steps": [steps]}
        outputs = self._predict("stylize", inputs)
        return _from_rows(outputs["image"][0]), outputs["loss"][0]

    def _predict(self, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
        body = {"signature_name": signature, "inputs": inputs}
        return self._reply(":predict", "outputs", json.dumps(body, separators=(",", ":")).encode("ascii"))

    def _reply(self, suffix: str, key: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(
            self._url + suffix, body, {"Content-Type": "application/json"} if body else {}
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as reply:
                return json.load(reply)[key]
        except urllib.error.HTTPError as error:
            code = WRONG_INPUT if error.code in REFUSED else FAILED
            raise ClientError(
                f"the server answered {error.code}: {_error_text(error.read())}", code
            ) from error
        except TimeoutError as error:
            raise ClientError(
                f"no reply from {self._url} within {self._timeout:g} s; see --timeout", FAILED
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ClientError(f"no reply from {self._url}: {reason}", FAILED) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ClientError(
                f"{self._url} is not TensorFlow Serving: its reply has no {key}", FAILED
            ) from error


def _error_text(body: bytes) -> str:
    """Return the message of a server's error. TensorFlow Serving sends it as ``{"error": ...}``."""
    text = body.decode("utf-8", "replace")
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text or "no message"


def _rows(image: Any) -> list[list[list[int]]]:
    """Return the pixels of an RGB image as nested lists ``[height][width][3]``."""
    width, values = image.width, list(image.tobytes())
    pixels = [values[i : i + 3] for i in range(0, len(values), 3)]
    return [pixels[i : i + width] for i in range(0, len(pixels), width)]


def _from_rows(rows: list[list[list[int]]]) -> Any:
    """Return the RGB image with such pixels."""
    values = bytes(itertools.chain.from_iterable(itertools.chain.from_iterable(rows)))
    return _pillow().frombytes("RGB", (len(rows[0]), len(rows)), values)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ClientError("stylize needs Pillow to read and write images: pip install pillow") from error
    return Image


def read_file(path: str) -> bytes:
    """Return the bytes of a file."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ClientError(f"cannot read {path}: {error.strerror or error}") from error


def read_image(path: str, size: int) -> Any:
    """Read a file as an RGB image of Pillow.

    The EXIF orientation is applied, transparent pixels are blended with white, and an image of more than
    `size` pixels on its longest side is shrunk to that size.
    """
    pillow = _pillow()
    from PIL import ImageOps

    try:
        with pillow.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, ValueError, pillow.DecompressionBombError) as error:
        raise ClientError(f"cannot read {path} as an image: {error}") from error
    image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image).convert("RGB")
    image.thumbnail((size, size), pillow.Resampling.LANCZOS)
    return image


def embed(client: Client, options: argparse.Namespace) -> None:
    """Print the cosine similarity of each pair of files, and write the embeddings with ``--output``."""
    embeddings = {}
    for path in options.files:
        try:
            embeddings[path] = [float(number) for number in client.embedding(read_file(path))]
        except ClientError as error:
            raise error if path in str(error) else ClientError(f"{path}: {error}", error.code) from error
        print(f"{path}: {len(embeddings[path])} numbers")
    for first, second in itertools.combinations(embeddings, 2):
        # The inner product is the cosine, since embeddings have unit length.
        cosine = sum(a * b for a, b in zip(embeddings[first], embeddings[second]))
        print(f"{cosine:.4f}  {first}  {second}")
    if options.output:
        _write(options.output, lambda path: Path(path).write_text(json.dumps(embeddings), encoding="utf-8"))


def stylize(client: Client, options: argparse.Namespace) -> None:
    """Write the content image in the style of the style image."""
    content, style = (read_image(path, options.size) for path in (options.content, options.style))
    image, loss = client.stylize(content, style, options.steps)
    _write(options.output, image.save)
    print(f"{options.output}: {image.width} x {image.height}, loss {loss:.4f}")


def status(client: Client, options: argparse.Namespace) -> None:
    """Print the state of each version; raise ClientError unless a version is available."""
    versions = client.status()
    for version, state in versions:
        print(f"{options.model} version {version}: {state}")
    if not any(state == "AVAILABLE" for _, state in versions):
        raise ClientError(f"no version of {options.model} is available; wait until one is AVAILABLE", FAILED)


def _write(path: str, write: Callable[[str], Any]) -> None:
    try:
        write(path)
    except (OSError, ValueError) as error:
        raise ClientError(f"cannot write {path}: {error}") from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with an error of one line, without the usage that argparse prints."""
        self.exit(WRONG_INPUT, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _number(kind: type, description: str, allowed: Callable[[Any], bool]) -> Callable[[str], Any]:
    """Return a parser of an option's value for argparse."""

    def parse(text: str) -> Any:
        try:
            number = kind(text)
            if allowed(number):
                return number
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"{text!r} is not a {description}")

    return parse


_size = _number(int, "whole number from 1", lambda n: n >= 1)
_steps = _number(int, "whole number from -2147483648 to 2147483647", lambda n: -(2**31) <= n < 2**31)
_seconds = _number(float, f"number above 0 and at most {MAX_TIMEOUT}", lambda n: 0 < n <= MAX_TIMEOUT)


def run(
    name: str,
    address: tuple[str, str],
    connect: Callable[[str, str, float], Client],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run the command line of a client.

    Args:
        name: name of the program.
        address: the option that gives the address of the server, and its default.
        connect: (address, model, timeout) -> client.
        arguments: arguments of the command line; by default those of the process.

    Returns:
        The exit code.

    Raises:
        SystemExit: with code 2 if the command line is wrong, with code 0 after ``--help``.
    """
    flag, default = address
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        flag, dest="address", default=default, metavar="ADDRESS", help="address of the server [%(default)s]"
    )
    common.add_argument("--model", default="tfstyle", help="name of the model [%(default)s]")
    common.add_argument(
        "--timeout",
        type=_seconds,
        default=600,
        metavar="SECONDS",
        help="seconds to wait for each reply [%(default)s]",
    )
    parser = _Parser(prog=name, description="A client of a tfstyle model in TensorFlow Serving.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("embed", parents=[common], help="compare the styles of images")
    command.add_argument("files", nargs="+", metavar="FILE", help="image: JPEG, PNG, BMP or GIF")
    command.add_argument(
        "-o", "--output", metavar="OUT.json", help="write the embedding of each file, as JSON"
    )
    command.set_defaults(run=embed)
    command = commands.add_parser("stylize", parents=[common], help="transfer the style of an image")
    command.add_argument("content", metavar="CONTENT", help="content image")
    command.add_argument("style", metavar="STYLE", help="style image")
    command.add_argument("-o", "--output", required=True, metavar="OUT", help="output image")
    command.add_argument(
        "--steps", type=_steps, default=50, metavar="N", help="iterations per scale [%(default)s]"
    )
    command.add_argument(
        "--size",
        type=_size,
        default=512,
        metavar="N",
        help="longest side in pixels; larger images are shrunk to it [%(default)s]",
    )
    command.set_defaults(run=stylize)
    command = commands.add_parser(
        "status", parents=[common], help="print the versions of the model and their state"
    )
    command.set_defaults(run=status)

    options = parser.parse_args(arguments)
    try:
        options.run(connect(options.address, options.model, options.timeout), options)
    except ClientError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.code
    return DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    return run("rest.py", ("--url", "http://127.0.0.1:8501"), Rest, arguments)


if __name__ == "__main__":
    sys.exit(main())

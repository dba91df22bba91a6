"""A client of a tfstyle model behind TensorFlow Serving's REST interface; the standard library is enough.

::

    python rest.py embed one.jpg two.jpg three.jpg
    python rest.py stylize content.jpg style.jpg -o out.png --steps 50
    python rest.py status

`stylize` needs Pillow, to read and write pictures; the other two send files as they are. Exit codes: 0 done;
1 the server cannot be reached or failed; 2 the command line or an input is wrong, or the server refuses it.
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
REFUSED = (400, 404, 413)  # HTTP's words for a request that the server will not take
LONGEST = 10**6  # seconds; sockets count milliseconds in 32 bits


class ClientError(Exception):
    """A message of one line for the user, and the exit code that goes with it."""

    def __init__(self, message: str, code: int = WRONG_INPUT) -> None:
        super().__init__(" ".join(message.split())[:600])
        self.code = code


class Client(Protocol):
    """What the commands below ask of a server, however it is reached."""

    def status(self) -> list[tuple[int, str]]:
        """Version and state of each version that the server knows."""

    def embedding(self, file: bytes) -> Sequence[float]:
        """The embedding, of unit length, of the picture in a file."""

    def stylize(self, content: Any, style: Any, steps: int) -> tuple[Any, float]:
        """A picture painted in another's style, and the loss; pictures are Pillow's, RGB."""


class Rest:
    """Requests to ``URL/v1/models/MODEL``.

    Args:
        url: of the server, as ``http://127.0.0.1:8501``.
        model: its name there.
        timeout: seconds to wait for each reply.
    """

    def __init__(self, url: str, model: str, timeout: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise ClientError(f"--url is {url!r}; it must start with http:// or https://")
        self._url = f"{url.rstrip('/')}/v1/models/{urllib.parse.quote(model, safe='')}"
        self._timeout = timeout

    def status(self) -> list[tuple[int, str]]:
        """GET: no body, and one entry for each version in the reply."""
        versions = self._reply("", "model_version_status")
        return [(int(entry["version"]), entry["state"]) for entry in versions]

    def embedding(self, file: bytes) -> Sequence[float]:
        """Signature encoded: bytes travel as base64."""
        code = base64.b64encode(file).decode("ascii")
        return self._predict("encoded", {"images": [{"b64": code}]})["embedding"][0]

    def stylize(self, content: Any, style: Any, steps: int) -> tuple[Any, float]:
        """Signature stylize: pixels travel as nested lists, a batch of one."""
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
            raise ClientError(f"the server says {error.code}: {_error_text(error.read())}", code) from error
        except TimeoutError as error:
            raise ClientError(f"no reply from {self._url} within {self._timeout:g} s", FAILED) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ClientError(f"no reply from {self._url}: {reason}", FAILED) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ClientError(
                f"{self._url} is not TensorFlow Serving: no {key} in its reply", FAILED
            ) from error


def _error_text(body: bytes) -> str:
    """The server's own words: TensorFlow Serving wraps them as ``{"error": ...}``."""
    text = body.decode("utf-8", "replace")
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text or "nothing more"


def _rows(picture: Any) -> list[list[list[int]]]:
    width, code = picture.width, list(picture.tobytes())
    pixels = [code[i : i + 3] for i in range(0, len(code), 3)]
    return [pixels[i : i + width] for i in range(0, len(pixels), width)]


def _from_rows(rows: list[list[list[int]]]) -> Any:
    code = bytes(itertools.chain.from_iterable(itertools.chain.from_iterable(rows)))
    return _pillow().frombytes("RGB", (len(rows[0]), len(rows)), code)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ClientError("stylize reads and writes pictures with Pillow: pip install pillow") from error
    return Image


def read_file(path: str) -> bytes:
    """The bytes of a file."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ClientError(f"cannot read {path}: {error.strerror or error}") from error


def read_picture(path: str, size: int) -> Any:
    """A file as an RGB picture of Pillow's: turned as EXIF says, on white, shrunk to `size` pixels."""
    image = _pillow()
    from PIL import ImageOps

    try:
        with image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, ValueError, image.DecompressionBombError) as error:
        raise ClientError(f"cannot read {path} as a picture: {error}") from error
    picture = image.alpha_composite(image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    picture.thumbnail((size, size), image.Resampling.LANCZOS)
    return picture


def embed(client: Client, options: argparse.Namespace) -> None:
    """Print the cosine similarity of each two files, and write the embeddings if asked to."""
    found = {}
    for path in options.files:
        try:
            found[path] = [float(number) for number in client.embedding(read_file(path))]
        except ClientError as error:
            raise error if path in str(error) else ClientError(f"{path}: {error}", error.code) from error
        print(f"{path}: {len(found[path])} numbers")
    for one, other in itertools.combinations(found, 2):
        # Embeddings have unit length.
        print(f"{sum(a * b for a, b in zip(found[one], found[other])):.4f}  {one}  {other}")
    if options.output:
        _write(options.output, lambda path: Path(path).write_text(json.dumps(found), encoding="utf-8"))


def stylize(client: Client, options: argparse.Namespace) -> None:
    """Paint one picture in another's style."""
    content, style = (read_picture(path, options.size) for path in (options.content, options.style))
    picture, loss = client.stylize(content, style, options.steps)
    _write(options.output, picture.save)
    print(f"{options.output}: {picture.width} x {picture.height}, loss {loss:.4f}")


def status(client: Client, options: argparse.Namespace) -> None:
    """Print each version's state; fail unless one can be used."""
    versions = client.status()
    for version, state in versions:
        print(f"{options.model} version {version}: {state}")
    if not any(state == "AVAILABLE" for _, state in versions):
        raise ClientError(f"no version of {options.model} is available", FAILED)


def _write(path: str, write: Callable[[str], Any]) -> None:
    try:
        write(path)
    except (OSError, ValueError) as error:
        raise ClientError(f"cannot write {path}: {error}") from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, where argparse prints its usage first."""
        self.exit(WRONG_INPUT, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _number(kind: type, words: str, allowed: Callable[[Any], bool]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        number = kind(text)
        if not allowed(number):
            raise ValueError
        return number

    parse.__name__ = words  # argparse says it in its error
    return parse


_size = _number(int, "whole number from 1", lambda n: n >= 1)
_steps = _number(int, "whole number of 32 bits", lambda n: -(2**31) <= n < 2**31)
_seconds = _number(float, f"number above 0, at most {LONGEST},", lambda n: 0 < n <= LONGEST)


def run(
    name: str,
    place: tuple[str, str],
    connect: Callable[[str, str, float], Client],
    arguments: Sequence[str] | None = None,
) -> int:
    """The command line of a client.

    Args:
        name: of the program.
        place: the flag that says where the server is, and its default.
        connect: place, model and timeout -> client.
        arguments: by default the process's.

    Returns:
        The exit code.

    Raises:
        SystemExit: with 2, as argparse does it, where the command line is wrong; with 0 after ``--help``.
    """
    flag, default = place
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(flag, dest="place", default=default, help="of the server [%(default)s]")
    common.add_argument("--model", default="tfstyle", help="its name there [%(default)s]")
    common.add_argument(
        "--timeout", type=_seconds, default=600, metavar="SECONDS", help="for each reply [%(default)s]"
    )
    parser = _Parser(prog=name, description="A client of a tfstyle model.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("embed", parents=[common], help="compare the styles of pictures")
    command.add_argument("files", nargs="+", metavar="FILE", help="JPEG, PNG, BMP or GIF")
    command.add_argument("-o", "--output", metavar="OUT.json", help="file -> embedding")
    command.set_defaults(run=embed)
    command = commands.add_parser("stylize", parents=[common], help="paint a picture in another's style")
    command.add_argument("content", metavar="CONTENT")
    command.add_argument("style", metavar="STYLE")
    command.add_argument("-o", "--output", required=True, metavar="OUT", help="the picture to write")
    command.add_argument("--steps", type=_steps, default=50, metavar="N", help="per scale [%(default)s]")
    command.add_argument(
        "--size", type=_size, default=512, metavar="N", help="longest side in pixels [%(default)s]"
    )
    command.set_defaults(run=stylize)
    command = commands.add_parser("status", parents=[common], help="versions of the model, and their state")
    command.set_defaults(run=status)

    options = parser.parse_args(arguments)
    try:
        options.run(connect(options.place, options.model, options.timeout), options)
    except ClientError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.code
    return DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program."""
    return run("rest.py", ("--url", "http://127.0.0.1:8501"), Rest, arguments)


if __name__ == "__main__":
    sys.exit(main())

"""Checks of paths before a run starts, atomic writing, and digests. TensorFlow is not imported here."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import itertools
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfstyle.errors import ConfigError, ImageError, InputError, OutputError, RunError, WeightsError, suggest

#: Prefix of the names of temporary files, which `replacing` renames when they are complete.
PARTIAL = ".tfstyle-"
#: Characters that the system forbids in the names of files, in addition to those that separate folders.
FORBIDDEN_CHARACTERS = '<>:"|?*' if os.name == "nt" else ""
#: Numbers of Windows' errors if another program, such as a virus scanner, has a file open: access denied,
#: which has other causes too, and sharing violation.
FILE_IN_USE = (5, 32)
#: Seconds to wait before each further attempt to replace such a file.
WAITS = (0.05, 0.1, 0.2, 0.4, 0.8)
#: File name suffix -> (Pillow's name of the format, longest side in pixels, whether it has an alpha channel).
IMAGE_FORMATS = {
    ".png": ("PNG", 2**31 - 1, True),
    ".jpg": ("JPEG", 65500, False),
    ".jpeg": ("JPEG", 65500, False),
    ".webp": ("WEBP", 16383, True),
    ".tif": ("TIFF", 2**31 - 1, True),
    ".tiff": ("TIFF", 2**31 - 1, True),
}
#: Suffix of a video -> FFmpeg's name of its encoder.
VIDEO_ENCODERS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
#: Suffixes of films of the evolution of an image.
FILM_SUFFIXES = (".mp4", ".gif", ".webp")
#: Values of `StyleConfig.weights` other than the path of a file.
NAMED_WEIGHTS = ("imagenet", "embedded", "random", "auto")
WEIGHTS_SUFFIXES = (".h5", ".npz", ".safetensors")


def check_writable(path: Path, overwrite: bool = False) -> None:
    """Raise OutputError unless a file can be created at a path.

    Args:
        path: of the file.
        overwrite: whether an existing file may be replaced.

    Raises:
        OutputError: the folder does not exist or cannot be written to, the path is that of a folder, the
            system forbids the name, or the file exists and ``overwrite`` is False.
    """
    if forbidden := [character for character in path.name if character in FORBIDDEN_CHARACTERS]:
        raise OutputError(
            f"cannot write {path}: names of files cannot contain {forbidden[0]} on this system; choose "
            "another name"
        )
    if not path.parent.is_dir():
        raise OutputError(
            f"cannot write {path}: there is no folder {path.parent}; create it or choose another one"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write {path}: no permission to write in {path.parent}; choose another folder"
        )
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; replace it with overwrite=True or choose another name")


def check_output(path: Path, *, overwrite: bool = False, shape: tuple[int, int] | None = None) -> None:
    """Raise an InputError unless an image can be written to a path. Called before a run starts.

    Args:
        path: of the image. Its suffix determines the format.
        overwrite: whether an existing file may be replaced.
        shape: ``(height, width)`` in pixels, to compare with the largest size of the format; None if it is
            not known.
    """
    image_format(str(path), shape=shape)
    check_writable(path, overwrite)


def image_format(name: str, *, shape: tuple[int, int] | None = None) -> tuple[str, bool]:
    """Return Pillow's name for the format of an image file, and whether the format has an alpha channel.

    Args:
        name: name of the file, whose suffix determines the format.
        shape: as for `check_output`.

    Raises:
        ImageError: the suffix is unknown, or the image is too large for the format.
    """
    suffix = Path(name).suffix
    if suffix.lower() not in IMAGE_FORMATS:
        raise ImageError(f"cannot write {name}: the suffix must be one of {', '.join(IMAGE_FORMATS)}")
    kind, longest, transparent = IMAGE_FORMATS[suffix.lower()]
    if shape is not None and max(shape) > longest:
        raise ImageError(
            f"cannot write {name}: {suffix} holds at most {longest} pixels a side; use .png or .tif"
        )
    return kind, transparent


def check_film(path: Path, *, overwrite: bool = False) -> None:
    """Raise an InputError unless a film can be written to a path. Called before a run starts.

    Args:
        path: of the film. Its suffix determines the format.
        overwrite: whether an existing file may be replaced.

    Raises:
        OutputError: the suffix is unknown, or as for `check_writable`.
        ConfigError: the film is an MP4 file, and PyAV is not installed or lacks the encoder libx264.
    """
    suffix = path.suffix.lower()
    if suffix not in FILM_SUFFIXES:
        suffixes = ", ".join(FILM_SUFFIXES)
        raise OutputError(f"cannot write {path}: the suffix of a film must be one of {suffixes}")
    if suffix == ".mp4":
        remedy = "install it with pip install 'tfstyle[video]', or choose .gif or .webp"
        try:
            import av
        except ImportError as error:
            raise ConfigError(f"{path}: MP4 films need PyAV ({error}); {remedy}") from None
        if "libx264" not in av.codecs_available:
            raise ConfigError(f"{path}: MP4 films need a PyAV with the encoder libx264; {remedy}")
    check_writable(path, overwrite)


def check_video(path: Path, *, overwrite: bool = False) -> None:
    """Raise an InputError unless a video can be written to a path. Called before a run starts.

    Args:
        path: path of the video. Its suffix determines the format.
        overwrite: whether an existing file may be replaced.

    Raises:
        OutputError: the suffix is unknown, or as for `check_writable`.
        ConfigError: PyAV is not installed or lacks the encoder.
    """
    suffix = path.suffix.lower()
    if suffix not in VIDEO_ENCODERS:
        suffixes = ", ".join(VIDEO_ENCODERS)
        raise OutputError(f"cannot write {path}: the suffix of a video must be one of {suffixes}")
    check_writable(path, overwrite)
    remedy = "install PyAV with pip install 'tfstyle[video]'"
    try:
        import av
    except ImportError as error:
        raise ConfigError(f"videos need PyAV ({error}); {remedy}") from None
    if VIDEO_ENCODERS[suffix] not in av.codecs_available:
        raise ConfigError(f"{path}: this PyAV lacks the encoder {VIDEO_ENCODERS[suffix]}; {remedy}")


def check_logdir(folder: Path) -> None:
    """Create a folder for the logs of TensorBoard. Called before a run starts.

    Raises:
        ConfigError: the package tensorboard is not installed.
        OutputError: the folder cannot be created or written to.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "logs for TensorBoard need the package tensorboard; install it with pip install "
            "'tfstyle[tensorboard]'"
        )
    make_folder(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write logs: no permission to write in {folder}; choose another folder")


def check_weights_output(path: Path, overwrite: bool = False) -> None:
    """Raise an InputError unless `tfstyle.Weights.save` can write to a path."""
    if path.suffix.lower() != ".npz":
        raise WeightsError(f"cannot write {path}: the name of a weights file must end in .npz")
    check_writable(path, overwrite)


def refuse_url(source: str | os.PathLike[str], error: type[InputError] = ImageError) -> None:
    """Raise an InputError if a source is a URL. Check it first: `Path` replaces its two slashes by one.

    Args:
        source: the path, as it was given.
        error: class of the exception.
    """
    if is_address(str(source)) or str(source).startswith("data:"):
        raise error(f"{str(source)[:200]} is a URL; download the file and give its path")


def is_address(source: str) -> bool:
    """Return whether a source is an address such as ``s3://bucket/photos``, not a path.

    Args:
        source: a path or an address.
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source) is not None


def is_pattern(source: str) -> bool:
    """Return whether a path contains ``*``, ``?`` or ``[``.

    Args:
        source: the path or address.
    """
    return any(character in source for character in "*?[")


def allowed_name(name: str) -> str:
    """Return a file name in which ``_`` replaces each of the `FORBIDDEN_CHARACTERS`.

    Args:
        name: the name without its folder.
    """
    return name.translate(dict.fromkeys(map(ord, FORBIDDEN_CHARACTERS), "_"))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError) as error:  # the name is too long, or contains a null character
        raise ImageError(f"no such image: {path} ({getattr(error, 'strerror', None) or error})") from None


def free_path(path: Path, *, may_replace: Callable[[Path], bool] = lambda path: False) -> Path:
    """Return a path, with ``_2``, ``_3`` and so on before its suffix if a file with the name exists.

    Args:
        path: the path without a number.
        may_replace: function that returns whether an existing file may be replaced, so that its path is free.

    Example:
        >>> from pathlib import Path
        >>> free_path(Path("cat_waves.png")).name
        'cat_waves.png'
        >>> Path("cat_waves.png").touch()
        >>> free_path(Path("cat_waves.png")).name
        'cat_waves_2.png'
    """
    numbered = (path.with_stem(f"{path.stem}_{number}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], numbered) if not free.exists() or may_replace(free))


def check_image_file(source: str | os.PathLike[str]) -> None:
    """Raise ImageError unless a path is that of an existing file."""
    path = Path(source)
    refuse_url(source)
    if not _exists(path):
        raise ImageError(f"no such image: {path}")
    if path.is_dir():
        raise ImageError(f"{path} is a folder; give an image file")


def split_style_source(source: str) -> tuple[Path, str | None] | None:
    """Split ``FILE.npz#NAME`` into the path of a style file and the name of a style in it.

    Returns:
        The path and the name, which is None for ``FILE.npz``. None if the source is not an ``.npz`` file.

    Example:
        >>> path, name = split_style_source("paintings.npz#starry_night")
        >>> path.name, name
        ('paintings.npz', 'starry_night')
        >>> split_style_source("starry_night.jpg") is None
        True
    """
    refuse_url(source)
    file, _, name = source.rpartition("#")
    if Path(file).suffix.lower() == ".npz":
        return Path(file), name
    return (Path(source), None) if Path(source).suffix.lower() == ".npz" else None


def check_image_or_folder(source: str | os.PathLike[str]) -> None:
    """Raise ImageError unless a path is that of an existing file or folder."""
    path = Path(source)
    refuse_url(source)
    if not _exists(path):
        raise ImageError(f"no such image or folder: {path}")


def check_clip(source: str | os.PathLike[str]) -> None:
    """Raise ImageError unless a path is that of an existing file, or of a folder, of a clip."""
    refuse_url(source)
    if not _exists(Path(source)):
        raise ImageError(f"no such video or folder: {source}")


def check_weights_file(source: str | os.PathLike[str]) -> None:
    """Raise WeightsError unless a path is that of an existing file with one of `WEIGHTS_SUFFIXES`."""
    refuse_url(source, WeightsError)
    path = Path(source)
    suffixes = ", ".join(WEIGHTS_SUFFIXES)
    if not path.is_file():
        raise WeightsError(
            f"no weights file {path}{suggest(path, NAMED_WEIGHTS)}; "
            f"give {', '.join(NAMED_WEIGHTS)} or a {suffixes} file"
        )
    if path.suffix.lower() not in WEIGHTS_SUFFIXES:
        raise WeightsError(f"{path}: the name of a weights file must end in {suffixes}")


def check_model_name(name: str) -> None:
    """Raise ConfigError unless a name can be that of a model and its folder in TensorFlow Serving."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name.startswith("."):
        raise ConfigError(
            f"name is {name!r}; use letters, digits, '_', '-' and '.', and do not begin with '.'"
        )


def keras_home() -> Path:
    """Return the folder in which Keras stores its files: ``$KERAS_HOME``, by default ``~/.keras``.

    If the user has no home folder, it is ``.keras`` in the folder for temporary files.
    """
    home = os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras")
    if home.startswith("~"):
        with contextlib.suppress(FileNotFoundError):  # no folder is writable
            home = os.path.join(tempfile.gettempdir(), ".keras")
    return Path(home)


def make_folder(path: Path) -> Path:
    """Create a folder and its parents unless they exist.

    Returns:
        The path.

    Raises:
        OutputError: the folder cannot be created, or its path begins with ``~``, which only shells expand.
    """
    if path.parts[:1] == ("~",) and not Path("~").exists():
        raise OutputError(
            f"cannot create the folder {path}: ~ is expanded by shells only; give the full path"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # the command line exits with 1 and not 2 if the disk is full
        raise OutputError(
            f"cannot create the folder {path}: {error.strerror or error}; choose another folder"
        ) from None
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file atomically, as a context manager: after the block the file is complete or unchanged.

    The data goes to a temporary file in the same folder. It is synchronised with the disk and renamed to the
    path when the block ends without an exception, and otherwise removed.

    Args:
        path: of the file. An existing file is replaced.

    Yields:
        The temporary file, open for writing in binary mode.

    Raises:
        RunError: the file cannot be written, for instance because the disk is full.
    """
    temporary = path.with_name(f"{PARTIAL}{_host()}-{os.getpid()}-{threading.get_ident()}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        rename(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        remedy = "check the free space and permissions"
        if getattr(error, "winerror", None) in FILE_IN_USE:
            remedy += ", and close the file in other programs"
        raise RunError(f"{path} could not be written: {error.strerror or error}; {remedy}") from error
    finally:
        with contextlib.suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)


def rename(source: Path, target: Path) -> None:
    """Rename a file or a folder. An existing file at the new path is replaced.

    On Windows this fails while another program has the file, or a file in the folder, open. Virus scanners
    open new files for a moment, so that it is tried again for about 1.5 seconds.

    Args:
        source: the path.
        target: the new path, in the same folder.

    Raises:
        OSError: it cannot be renamed.
    """
    for wait in WAITS:
        try:
            os.replace(source, target)
        except PermissionError as error:
            if getattr(error, "winerror", None) not in FILE_IN_USE:
                raise
            time.sleep(wait)
        else:
            return
    os.replace(source, target)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is either complete or unchanged, as `replacing` does.

    Raises:
        RunError: the file cannot be written, for instance because the disk is full.
    """
    with replacing(path) as file:
        file.write(data)


def remove_left(folder: Path) -> None:
    """Remove the temporary files of `replacing` in a folder whose process on this machine has ended."""
    for path in folder.glob(f"{PARTIAL}{_host()}-*"):
        number = path.name.split("-")[-2]
        if number.isdecimal() and not _runs(int(number)):
            with contextlib.suppress(OSError):
                path.unlink()


def _host() -> str:
    return re.sub(r"[^\w.]", "_", socket.gethostname())


def _runs(process: int) -> bool:
    """Return whether a process with this identifier may be running; True on systems other than POSIX."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Synchronise a folder with the disk, so that a renamed file survives a power failure."""
    with contextlib.suppress(OSError):  # Windows cannot open folders; some network disks cannot sync them
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def hidden_stderr() -> Iterator[int]:
    """Hide what the process writes to stderr, as a context manager. After an ImportError it is shown.

    Yields:
        A file descriptor of stderr, for what should not be hidden.

    Raises:
        ConfigError: no folder for temporary files is writable. TensorFlow cannot be imported without one.
    """
    try:
        sink = tempfile.TemporaryFile()  # noqa: SIM115
    except FileNotFoundError as error:
        raise ConfigError(f"{error.strerror}; set TMPDIR to a writable folder") from None
    with sink:
        stderr = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield stderr
        except ImportError:
            sink.seek(0)
            with contextlib.suppress(OSError):  # stderr cannot be written to
                os.write(stderr, sink.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def digest(value: Any) -> str:
    """Return the SHA-256 digest of a value.

    The digest is the same in every process. Two mappings with the same items have the same digest, whatever
    the order of their keys.

    Args:
        value: an array or a tensor of numbers, booleans or strings; None, a boolean, a number, a string or
            bytes; or a mapping, a list or a tuple of such values.

    Raises:
        TypeError: the value has or contains another type, whose ``repr`` may contain a memory address.

    Example:
        >>> digest({"size": 512, "seed": 0}) == digest({"seed": 0, "size": 512})
        True
    """
    running = hashlib.sha256()

    def add(item: Any) -> None:
        if hasattr(item, "__array__"):  # an array, a scalar of NumPy, or a tensor
            array = np.asarray(item)
            if array.dtype.hasobject:
                raise TypeError(f"an array of type {array.dtype} has no digest; use an array of numbers")
            running.update(f"array {array.dtype} {array.shape};".encode())
            running.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        elif isinstance(item, Mapping):
            add([[key, item[key]] for key in sorted(item)])
        elif isinstance(item, (list, tuple)):
            running.update(f"list {len(item)};".encode())
            for part in item:
                add(part)
        elif item is None or isinstance(item, (bool, int, float, str, bytes)):
            running.update(f"{item!r};".encode())
        else:
            raise TypeError(
                f"a value of type {type(item).__name__} has no digest; use numbers, strings, arrays, lists "
                "or mappings"
            )

    add(value)
    return running.hexdigest()

"""The content images of a batch: from a folder, a pattern, or a list of paths."""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tfstyle.errors import ConfigError, ImageError
from tfstyle.files import is_address, is_pattern
from tfstyle.images import find_images, is_image_name

#: Suffixes of files that contain a list of images.
LIST_SUFFIXES = (".txt", ".parquet")


class Content(NamedTuple):
    """A content image of a batch.

    Attributes:
        path: path or address of the image.
        key: the part of the path on which the name of the result depends: the path below the folder that is
            searched, the name of a single file, or the entry of a list.
    """

    path: str
    key: str


def find_contents(source: str) -> list[Content]:
    """Return the content images that a path describes.

    Args:
        source: an image; a folder, which is searched with all its subfolders; a pattern with ``*``, ``?``,
            ``[...]`` or ``**``, which stands for any number of folders, for images and for folders that are
            searched; or a list of images as a text file with one path per line, or as a Parquet file with a
            column ``path``. The paths of a list are relative to its folder.

    Returns:
        The content images, sorted by path; those of a list in its order. Images of a folder and of a pattern
        that begins with this folder have the same keys.

    Raises:
        ImageError: there is no such file or folder, or no image in it.
        ConfigError: a list has an address, or reading a Parquet file needs pyarrow.

    Example:
        >>> from pathlib import Path
        >>> from tfstyle.run import find_contents
        >>> Path("photos/cats").mkdir(parents=True)
        >>> Path("photos/cats/tom.jpg").touch()
        >>> [content.key for content in find_contents("photos")]
        ['cats/tom.jpg']
        >>> [content.key for content in find_contents("photos/*/t*.jpg")]
        ['cats/tom.jpg']
    """
    path = Path(source)
    if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        entries = read_list(source, path.read_bytes())
        if wrong := next(filter(is_address, entries), None):
            raise ConfigError(f"{source}: {wrong} is an address, which only a batch on Ray can read")
        keys = dict.fromkeys(map(posixpath.normpath, entries))
        return [Content(str(path.parent / key), key) for key in keys]
    if is_pattern(source) and not path.exists():
        root = Path(pattern_root(source))
        matches = map(Path, glob.glob(source, recursive=True))
        files = {file for match in matches for file in (match.rglob("*") if match.is_dir() else [match])}
        images = sorted(file for file in files if is_image_name(file.relative_to(root)) and file.is_file())
        if not images:
            raise ImageError(f"no image matches the pattern {source}")
    else:
        root = path
        images = find_images([path])
    return [
        Content(str(image), image.relative_to(root).as_posix() if root in image.parents else image.name)
        for image in images
    ]


def pattern_root(pattern: str) -> str:
    """Return the folder that a pattern begins with: its parts before the first one with a wildcard.

    Args:
        pattern: a path or an address that contains ``*``, ``?`` or ``[``.

    Example:
        >>> from tfstyle.run.contents import pattern_root
        >>> pattern_root("photos/2024/**/*.jpg")
        'photos/2024'
    """
    start = pattern[: next(index for index, character in enumerate(pattern) if character in "*?[")]
    return start.rpartition("/")[0] if is_address(pattern) else str(Path(f"{start}*").parent)


def contents_outside(contents: Iterable[Content], folder: str) -> list[Content]:
    """Return the content images outside of a folder, such as the output folder.

    Args:
        contents: the content images.
        folder: path or address of the folder.

    Example:
        >>> from tfstyle.run import Content, contents_outside
        >>> contents = [Content(f"photos/{key}", key) for key in ("cat.jpg", "results/cat_waves.png")]
        >>> [content.key for content in contents_outside(contents, "photos/results")]
        ['cat.jpg']
    """
    if is_address(folder):
        return [content for content in contents if not content.path.startswith(f"{folder.rstrip('/')}/")]
    root = Path(folder).resolve()
    return [
        content for content in contents
        if is_address(content.path) or root not in Path(content.path).resolve().parents
    ]  # fmt: skip


def read_list(name: str, data: bytes) -> list[str]:
    """Return the entries of a list of images.

    Args:
        name: path of the list. With the suffix ``.parquet`` it is read as Parquet, otherwise as UTF-8 text.
        data: content of the file.

    Returns:
        The entries without empty ones and repetitions.

    Raises:
        ImageError: the file cannot be read, or it has no entry.
        ConfigError: reading a Parquet file needs pyarrow.
    """
    if name.lower().endswith(".parquet"):
        entries = _read_column(name, data)
    else:
        try:
            entries = data.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ImageError(
                f"{name} is not a text file in UTF-8 ({error.reason} at {error.start})"
            ) from None
    entries = list(dict.fromkeys(entry.strip() for entry in entries if entry and entry.strip()))
    if not entries:
        raise ImageError(f"the list {name} has no entries")
    return entries


def _read_column(name: str, data: bytes) -> list[str]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(f"reading {name} needs pyarrow; pip install 'tfstyle[parquet]'") from None
    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
        return [str(entry) for entry in table["path"].to_pylist() if entry is not None]
    except KeyError:
        columns = ", ".join(table.column_names)
        raise ImageError(f"{name} has the columns {columns}; the paths must be in the column path") from None
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ImageError(f"{name} is not a Parquet file ({str(error).splitlines()[0]})") from None

"""Messages of the library on the command line: names of arguments are replaced by options of the command.

The library names arguments as in Python: ``size is 0``, ``give weights="embedded"``, ``overwrite=True``. On
the command line these are ``--size is 0``, ``give --weights embedded`` and ``--overwrite``.
"""

from __future__ import annotations

import argparse
import logging
import re
import shlex
import subprocess
import sys

#: Argument -> option of the command that runs.
_options: dict[str, str] = {}

# A name inside a path, quotes or a longer word is not the name of an argument.
_NAME = r"(?<![\w./\\#'\"=-])([a-z][a-z0-9_]*)"
_END = r"(?![\w/\\'\"=-]|\.\w)"
_WITH_VALUE = re.compile(rf"{_NAME}=(\"[^\"]*\"|[\w+-]+(?:\.\d+)?){_END}")
# A name without an underscore is also an English word, unless it is the subject of a clause.
_SUBJECT = re.compile(rf"(?:^|(?<=[;:,] )|(?<= and )){_NAME}(?= (?:is|are|was|has|must|needs?|applies)\b)")
_MENTIONED = re.compile(rf"{_NAME}{_END}")


def name_options(parser: argparse.ArgumentParser) -> None:
    """Store the options of a command's parser for `in_options`."""
    _options.clear()
    for action in parser._actions:
        if flag := next((flag for flag in action.option_strings if flag.startswith("--")), None):
            _options[action.dest] = _options[flag[2:].replace("-", "_")] = flag


def in_options(message: object) -> str:
    """Return a message in which the names of arguments are replaced by the options of the command.

    Args:
        message: the message, or an exception with the message.

    Example:
        >>> from tfstyle.cli.parser import make_parser
        >>> from tfstyle.cli.wording import in_options
        >>> words = ["stylize", "content.jpg", "style.jpg", "-o", "out.png"]
        >>> options = make_parser().parse_args(words)
        >>> in_options('tv_weight is -1; give weights="embedded", enlarge=True or a larger size')
        '--tv-weight is -1; give --weights embedded, --enlarge or a larger size'
    """

    def with_value(match: re.Match[str]) -> str:
        option, value = _options.get(match[1]), match[2].strip('"')
        if option is None:
            return match[0]
        if value in ("True", "False"):
            return option if value == "True" else option.replace("--", "--no-", 1)
        return f"{option} {quoted(value)}"

    def mentioned(match: re.Match[str]) -> str:
        return _options.get(match[1], match[0])

    def underscored(match: re.Match[str]) -> str:
        return mentioned(match) if "_" in match[1] else match[0]

    text = _WITH_VALUE.sub(with_value, str(message))
    return _MENTIONED.sub(underscored, _SUBJECT.sub(mentioned, text))


def quoted(word: str) -> str:
    """Return a word of a shell command, with quotation marks if the shell needs them.

    Args:
        word: the word. Windows' shells need double quotes, and other shells single quotes.
    """
    return subprocess.list2cmdline([word]) if sys.platform == "win32" else shlex.quote(word)


class LogHandler(logging.Handler):
    """A logging handler that prints messages with the names of options on the current ``sys.stderr``.

    It does not store the stream, because a progress display replaces ``sys.stderr`` by a stream that prints
    above the display.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message of a record."""
        print(f"tfstyle: {in_options(self.format(record))}", file=sys.stderr, flush=True)

"""The command line: the parser, and one module for each command."""

from tfstyle.cli.parser import main

__all__ = ["main"]

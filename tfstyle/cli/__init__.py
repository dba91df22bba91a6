"""The command line. TensorFlow is loaded by the commands, not by the parser."""

from tfstyle.cli.parser import main

__all__ = ["main"]

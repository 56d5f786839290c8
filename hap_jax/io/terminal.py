"""Prepares standard output for file names that its encoding cannot represent."""

import io
import sys


def print_any_name():
  """Makes standard output print "?" for each byte of a file name that its encoding cannot represent.

  Python represents such a byte as a lone surrogate. Without this call, printing it raises UnicodeEncodeError.
  """
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="replace")

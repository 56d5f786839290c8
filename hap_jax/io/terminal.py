"""Standard output that prints any file name."""

import io
import sys


def print_any_name():
  """Makes standard output print "?" for bytes of a file name that its encoding cannot hold.

  Such a byte is a lone surrogate in Python's text. Without this call, printing one raises UnicodeEncodeError.
  """
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="replace")

"""Defines `Selection`, the part of a checkpoint that the user asks for."""

import dataclasses
import shlex


@dataclasses.dataclass(frozen=True)
class Selection:
  """The part of a checkpoint to read. With the default values, the whole checkpoint is read.

  Attributes:
    key: the entry of the file that holds the weights, such as "teacher". Entries inside each other are joined
      by dots. "": it is found from the file.
    prefix: only tensors whose names begin with this text are read. "": it is found from the file.
    encoder_only: True: only the encoder is read. The decoder and all heads are left out and listed as not
      used.
    of_run: True if the values come from the configuration of a run, for messages.
  """

  key: str = ""
  prefix: str = ""
  encoder_only: bool = False
  of_run: bool = False

  def words(self, of_run=False):
    """Returns the options of this selection as words of a command line, each after a space.

    Args:
      of_run: True: the words are keys of the configuration of a run.
    """
    values = {"key": self.key, "prefix": self.prefix, "encoder_only": self.encoder_only}
    written = dataclasses.replace(self, of_run=of_run)
    words = (written.option(name, value) for name, value in values.items() if value)
    return "".join(f" {shlex.quote(word)}" for word in words)

  def option(self, name, value):
    """Returns the option of a command, or the key of a configuration, that sets a field to a value."""
    if self.of_run:
      return f"--config.init_{name}={value}"
    return f"--{name}" if value is True else f"--{name}={value}"


WHOLE = Selection()

"""Reads records again after an error of the storage that may disappear after a short time."""

import errno
import os
import time

from hap_jax.data.sources.base import BadRecordError

# Seconds before the second, third and fourth try to read a record.
WAITS = (0.1, 1.0, 5.0)
# Errors of disks and network file systems: a failed read, a restarted file server, and a slow file server.
_MOMENTARY = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
_TEXTS = tuple(os.strerror(number) for number in _MOMENTARY)
# If all tries fail for this number of records of a batch, the storage will not recover soon. So the other
# records get only one try each. Otherwise a run would wait hours for its error message.
_MOST_RECORDS = 10


def is_momentary(error):
  """Returns True if reading again may help after this error, or after one of its causes."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in _MOMENTARY:
      return True
    # The reader of packed data raises a RuntimeError that has only the text of the system's error.
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS):
      return True
    error = error.__cause__
  return False


class Reader:
  """Reads the records of one batch.

  Attributes:
    repeated: {index of a record that was read after a failed try: error message of the failed try}.
  """

  def __init__(self, waits=WAITS):
    """Makes a reader for a new batch. `waits` are the seconds before each further try."""
    self.repeated = {}
    self._waits = waits
    self._given_up = set()  # indices of the records for which all tries failed

  def read(self, index, first, again):
    """Returns record `index`.

    Args:
      index: index of the record.
      first: function without arguments that returns the record, for the first try.
      again: function without arguments that returns the record, for all further tries.
    Raises:
      BadRecordError: if the record is bad, or if the last try failed, too.
      OSError: if the source raised it, and another try cannot help.
    """
    try:
      return first()
    except (BadRecordError, OSError) as error:
      if not is_momentary(error):
        raise
      failed = error
    may_wait = index not in self._given_up and len(self._given_up) < _MOST_RECORDS
    waits = self._waits if may_wait else ()
    for wait in waits:
      time.sleep(wait)
      try:
        record = again()
      except (BadRecordError, OSError) as error:
        if not is_momentary(error):
          raise
        failed = error
      else:
        self.repeated[index] = str(failed)
        return record
    if may_wait:
      self._given_up.add(index)
    raise BadRecordError(f"{failed} (number of tries: {1 + len(waits)})") from failed

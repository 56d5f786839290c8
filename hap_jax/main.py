"""Trains a model: `python -m hap_jax.main --config=FILE --workdir=DIR [--config.KEY=VALUE ...]`.

Example: `python -m hap_jax.main --config=configs/pretrain_b16.py --workdir=runs/b16`.
After installation, `hap train` is the same command: `hap train --config=pretrain_b16 --workdir=runs/b16`.
"""

from hap_jax.train import preemption

if __name__ == "__main__":
  preemption.install()  # before the other imports, which take seconds on a shared disk

import re
import sys
import traceback

from absl import app, flags, logging
from ml_collections import config_flags

from hap_jax import config as config_lib
from hap_jax import config_file, distributed
from hap_jax import config_values as values
from hap_jax.io import terminal


class _ConfigFile(flags.ArgumentParser):
  """Reads --config=FILE, and checks that the key of each --config.KEY flag exists before it is set."""

  def flag_type(self):
    return "config object"

  def parse(self, path):
    try:
      config = config_lib.read_file(path)
    except ValueError as error:
      raise flags.Error(str(error)) from error  # absl would add text to the message of a ValueError
    # The error message of this check suggests the nearest key. The error message of absl does not.
    for word in flags.FLAGS.read_flags_from_files(sys.argv[1:], force_gnu=False):
      named = re.match(r"--?(?:no)?config\.([^=[]+)", word)
      if named and not values.has(config, named[1]):
        raise flags.Error(f"{word}: no such key; {values.suggest(named[1], values.flatten(config))}")
    config.lock()
    return config


_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  f"A Python file, the config.json of a run, or a shipped configuration: {', '.join(config_file.shipped())}. "
  "Each key of it is a flag too. For example, --config.data.source=NAME selects the data set, one of "
  f"{', '.join(config_lib.names('data/sources'))}. --dry_run prints all keys.",
)
flags.FLAGS["config"].parser = _ConfigFile()
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run. If it already has a checkpoint, the run resumes."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print configuration, shapes and parameters, then stop.")
_COORDINATOR = flags.DEFINE_string(
  "coordinator_address",
  None,
  "HOST:PORT of process 0, if the run has several processes. All use the same workdir.",
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", lower_bound=0)
flags.mark_flag_as_required("config")


def main(argv):
  if len(argv) > 1:
    # In "--config.mask.parts False", the flag without "=" sets True, and the word "False" would be ignored.
    _fail(f"{' '.join(argv[1:])}: expected --config.KEY=VALUE, in one word")
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)
  terminal.print_any_name()
  code = _train()
  from hap_jax.data import worker_process  # imported late: errors in flags are reported before OpenCV loads

  # Only after `_train` has left its `except` blocks: a caught exception still refers to the last batches, and
  # then their shared memory cannot be freed.
  worker_process.release_shared_memory()
  sys.exit(code)


def _train():
  """Runs the training or the dry run. Returns the exit code, or an error message for exit code 1."""
  # Imported late, because the worker processes of the loader import this file again and must stay small.
  from hap_jax import run
  from hap_jax.train.loop import NonFiniteLossError

  try:
    distributed.join_processes(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    config = config_lib.finalize(_CONFIG.value)
    if _DRY_RUN.value:
      run.dry_run(config)
      return 0
    if not _WORKDIR.value:
      raise ValueError(
        "--workdir is missing: name the folder in which the run keeps its checkpoints and logs"
      )
    if "://" in _WORKDIR.value:
      raise ValueError(f"--workdir={_WORKDIR.value}: expected a folder; mount the bucket, or use a disk")
    run.run(config, _WORKDIR.value, say=_say)
    return 0
  except preemption.StoppedError as error:
    _say(str(error))
    return error.exit_code
  except (ValueError, OSError, NonFiniteLossError) as error:
    if logging.level_info():  # --verbosity=0 or more prints the traceback
      _crash()
    return _explain(str(error))
  except Exception:
    _crash()


def _say(line):
  """Prints a line in the first process. The other processes would only print the same line."""
  import jax

  if jax.process_index() == 0:
    print(line, flush=True)


def _parse(argv):
  """Parses the flags. An error in a flag is printed as one line, not as a traceback."""
  try:
    return flags.FLAGS(argv)
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    message = str(error).splitlines()[0]
    if isinstance(error, (AttributeError, KeyError)):
      key = message.strip("'\"")
      message = f"no such key: {', '.join(arg for arg in argv if key in arg) or message}"
    _fail(message)


def _fail(message):
  """Ends the program with an error message on one line."""
  sys.exit(_explain(message))


def _explain(message):
  """Returns an error message as one line. If this is one of several processes, ends it immediately."""
  line = "error: " + " ".join(message.split())
  if distributed.is_one_of_several():
    distributed.leave(line)
  return line


def _crash():
  """Ends the program with the traceback of the current exception."""
  if distributed.is_one_of_several():
    distributed.leave(traceback.format_exc())
  raise


if __name__ == "__main__":
  app.run(main, flags_parser=_parse)

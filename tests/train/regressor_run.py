"""Trains the regressor in a separate process: `python -m tests.train.regressor_run WORKDIR [OPTIONS]`."""

import argparse
import os
import signal
import sys

from hap_jax import distributed
from hap_jax.train import preemption


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("workdir")
  parser.add_argument("--coordinator_address")
  parser.add_argument("--num_processes", type=int)
  parser.add_argument("--process_id", type=int)
  parser.add_argument("--total_steps", type=int, default=6)
  parser.add_argument("--kill_at", type=int, help="SIGKILL to this process when the step is logged")
  args = parser.parse_args()
  preemption.install()
  distributed.join_processes(args.coordinator_address, args.num_processes, args.process_id)

  import jax  # imported late, as in the training command

  from tests.train import regressor

  def say(line):
    if args.kill_at and f" {args.kill_at}/" in line:
      os.kill(os.getpid(), signal.SIGKILL)
    print(line, flush=True)

  try:
    regressor.train(
      args.workdir,
      cadence=regressor.CADENCE,
      say=say if jax.process_index() == 0 else lambda line: None,
      total_steps=args.total_steps,
    )
  except preemption.StoppedError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
  except OSError as error:  # as in the training command
    distributed.leave(f"error: {error}")


if __name__ == "__main__":
  main()

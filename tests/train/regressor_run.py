"""Trains the regressor in processes of their own: `python -m tests.train.regressor_run WORKDIR [OPTIONS]`."""

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

  from hap_jax import sharding
  from hap_jax.train import loop
  from hap_jax.train.checkpoint import Checkpoints
  from tests.train.regressor import make_task

  def say(line):
    if args.kill_at and f" {args.kill_at}/" in line:
      os.kill(os.getpid(), signal.SIGKILL)
    print(line, flush=True)

  try:
    with Checkpoints(args.workdir, keep_last=9) as checkpoints:
      loop.run(
        make_task(total_steps=args.total_steps),
        workdir=args.workdir,
        seed=0,
        mesh=sharding.make_mesh(),
        checkpoints=checkpoints,
        cadence=loop.Cadence(log=1, save=2, evaluate=3, panel=0),
        say=say if jax.process_index() == 0 else lambda line: None,
      )
  except preemption.StoppedError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)


if __name__ == "__main__":
  main()

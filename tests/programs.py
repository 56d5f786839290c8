"""Starts commands of this project in processes of their own."""

import os
import pathlib
import socket
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]


def start(command, *, devices, env=None):
  """Starts a command in the root of the repository. Its process leads a new process group.

  Args:
    command: list of texts.
    devices: number of simulated devices.
    env: {name: value} of further environment variables.
  Returns:
    a `subprocess.Popen`. Its stdout, as text, has both outputs of the command.
  """
  own = {"PYTHONPATH": str(ROOT), "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
  return subprocess.Popen(
    command,
    cwd=ROOT,
    env={**os.environ, **own, **(env or {})},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )


def free_address():
  """Returns an address of this machine whose port is free now."""
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return f"127.0.0.1:{probe.getsockname()[1]}"


def joined(count):
  """Returns the flags of each of `count` processes of one run. A single process has none."""
  if count == 1:
    return [[]]
  shared = [f"--coordinator_address={free_address()}", f"--num_processes={count}"]
  return [[*shared, f"--process_id={i}"] for i in range(count)]

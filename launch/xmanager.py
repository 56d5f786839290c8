"""Starts a run through XManager, on this machine (xm_local) or in containers under SLURM (xm_slurm)."""

import datetime
import importlib
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

# If this file runs as a program, its folder is first in sys.path. Then `import xmanager` would find this
# file.
if not __package__:
  sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from launch import command

_NEEDED = (
  "hap_jax",
  "configs",
  "requirements.txt",
  "pyproject.toml",
  "setup.py",
  "README.md",
  "LICENSE",
)  # files and folders that a container needs
_ONLY_LOCAL = ("num_processes",)
_ONLY_SLURM = (
  *("ssh", "image", "gpus", "cpus_per_task", "time", "signal_before", "runtime", "mount"),
  *("partition", "account", "qos"),
)
_DEFAULTS = {
  "gpus": 8,
  "cpus_per_task": 8,
  "time": 24.0,
  "signal_before": 120,
  "runtime": "apptainer",
  "mount": [],
}


def main(argv):
  args, words = _parser().parse_known_args(argv)
  line = command.build(words)
  wrong = _ONLY_SLURM if args.where == "local" else _ONLY_LOCAL
  for name in wrong:
    if getattr(args, name) is not None:
      raise ValueError(f"--{name} has no effect with --where={args.where}: remove --{name}")
  if args.dry_run:
    print(shlex.join(line))
    return
  title = args.title or command.run_name(line)
  if args.where == "local":
    _local(title, line, args.num_processes or 1)
    return
  for name, value in _DEFAULTS.items():
    if getattr(args, name) is None:
      setattr(args, name, value)
  for name in ("ssh", "image"):
    if getattr(args, name) is None:
      raise ValueError(f"--{name} is missing: --where=slurm needs --{name} (--help lists the flags)")
  if min(args.gpus, args.cpus_per_task, args.signal_before) < 1 or args.time <= 0:
    raise ValueError("--gpus, --cpus_per_task, --signal_before and --time: expected positive numbers")
  _slurm(title, line, args)


def _local(title, line, num_processes):
  """Runs local.sh as a job of an XManager experiment. Waits until the job ends."""
  xm, xm_local = _import("xmanager.xm", "xmanager.xm_local")
  _mark_flags_as_parsed()
  words = [*line[3:], f"--num_processes={num_processes}"]
  binary = xm.Binary(str(command.ROOT / "launch" / "local.sh"))
  try:
    with xm_local.create_experiment(experiment_title=title) as experiment:
      [executable] = experiment.package([xm.Packageable(binary, xm_local.Local.Spec(), args=words)])
      experiment.add(xm.Job(executable, xm_local.Local(), name="train"))
  except RuntimeError as error:  # XManager raises it for every exit code except 0, also for 42
    raise ValueError(f"the run ended with an exit code other than 0: {error}") from None


def _slurm(title, line, args):
  """Builds an image, pushes it, and submits one task per GPU. XManager requeues a task that ends with 42."""
  xm, xm_slurm, config = _import("xmanager.xm", "xm_slurm", "xm_slurm.config")
  _mark_flags_as_parsed()
  if (
    shutil.which("docker") is None
    or subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode
  ):
    raise ValueError("`docker buildx version` fails here: --where=slurm needs it to build the image")
  user, _, host = args.ssh.rpartition("@")
  cluster = config.SlurmClusterConfig(
    name=host,
    ssh=config.SSHConfig(endpoints=(config.Endpoint(host, None),), user=user or None),
    runtime=config.ContainerRuntime.from_string(args.runtime),
    mounts={config.MountSpec(folder, kind=config.MountKind.DIR) for folder in args.mount},
  )
  executor = xm_slurm.Slurm(
    requirements=xm_slurm.JobRequirements(
      cluster=cluster, gpu=args.gpus, cpu=args.cpus_per_task, replicas=args.gpus
    ),
    time=datetime.timedelta(hours=args.time),
    partition=args.partition,
    account=args.account,
    qos=args.qos,
    timeout_signal=signal.SIGTERM,
    timeout_signal_grace_period=datetime.timedelta(seconds=args.signal_before),
    requeue_on_timeout=False,  # the watchdog of xm_slurm would kill the run at the signal that makes it save
  )
  with tempfile.TemporaryDirectory() as folder, xm_slurm.create_experiment(title) as experiment:
    _copy_project(pathlib.Path(folder))
    container = xm_slurm.python_container(
      executor_spec=xm_slurm.Slurm.Spec(tag=args.image),
      entrypoint=xm.ModuleName(line[2]),
      context=pathlib.Path(folder),
      extra_python_packages=(_jax_with_cuda(),),
      args=line[3:],
    )
    [executable] = experiment.package([container])
    experiment.add(xm.Job(executable, executor, name="train"))


def _copy_project(folder):
  """Copies the files of `_NEEDED` into a folder.

  The whole checkout would be too large for a container, because it also has environments and runs.
  """
  for name in _NEEDED:
    source = command.ROOT / name
    if source.is_dir():
      shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
      shutil.copy(source, folder / name)


def _jax_with_cuda():
  """Returns the requirement of jax with its CUDA plugin, with the version bounds of requirements.txt."""
  text = (command.ROOT / "requirements.txt").read_text()
  return "jax[cuda13]" + re.search(r"^jax([<>=~!][^\s#;]*)", text, re.MULTILINE)[1]


def _import(*names):
  """Imports modules of requirements-launch.txt. Called late, because a dry run needs none of them."""
  try:
    return [importlib.import_module(name) for name in names]
  except ModuleNotFoundError as error:
    raise ValueError(
      f"{error.name} is not installed here: run python -m pip install -r requirements-launch.txt, "
      "preferably in a separate environment"
    ) from None


def _mark_flags_as_parsed():
  """Marks all absl flags as parsed, with their defaults, because XManager reads its own absl flags."""
  from absl import flags

  flags.FLAGS.mark_as_parsed()


def _parser():
  parser = command.Parser(prog="launch/xmanager.py", description=__doc__)
  parser.add_argument(
    "--dry_run", action="store_true", help="print the command of one process and start nothing"
  )
  parser.add_argument(
    "--where",
    choices=("local", "slurm"),
    default="local",
    help="where the run takes place (default: %(default)s)",
  )
  parser.add_argument("--title", help="title of the experiment (default: last part of the workdir)")
  local = parser.add_argument_group("--where=local")
  local.add_argument("--num_processes", type=int, help="number of processes, as in local.sh (default: 1)")
  slurm = parser.add_argument_group("--where=slurm")
  slurm.add_argument("--ssh", metavar="USER@HOST", help="login node of the cluster")
  slurm.add_argument(
    "--image", help="name under which the image is pushed, such as ghcr.io/me/hap_jax:latest"
  )
  slurm.add_argument(
    "--gpus", type=int, help=f"number of GPUs, with one process each (default: {_DEFAULTS['gpus']})"
  )
  slurm.add_argument(
    "--cpus_per_task", type=int, help=f"CPUs per process (default: {_DEFAULTS['cpus_per_task']})"
  )
  slurm.add_argument("--time", type=float, metavar="HOURS", help=f"time limit (default: {_DEFAULTS['time']})")
  slurm.add_argument(
    "--signal_before",
    type=int,
    metavar="SECONDS",
    help=f"time before the limit at which the run saves and stops (default: {_DEFAULTS['signal_before']})",
  )
  slurm.add_argument(
    "--runtime",
    choices=("singularity", "apptainer", "podman"),
    help=f"runtime of the containers (default: {_DEFAULTS['runtime']})",
  )
  slurm.add_argument(
    "--mount",
    action="append",
    metavar="DIR",
    help="folder of the cluster that the container can use, such as the data; may be repeated",
  )
  for name in ("partition", "account", "qos"):
    slurm.add_argument(f"--{name}")
  return parser


if __name__ == "__main__":
  sys.exit(command.report_errors(main, sys.argv[1:]))

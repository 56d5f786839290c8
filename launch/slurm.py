"""Writes an sbatch script for a run with one process per GPU. With --submit it also submits the script.

The script requeues its job if the run ends with exit code 42. This code means that the run was stopped and
its state was saved.
"""

import pathlib
import re
import shlex
import subprocess
import sys

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from launch import command

_SCRIPT = """\
#!/bin/bash
{directives}

set -u
cd {root}
{setup}
# A signal may also reach this shell. The shell must survive it to read the exit code of srun.
trap : TERM

# srun returns the largest exit code of its tasks. The code of a failed task must have priority over 42, the
# code of a task that saved. So each task adds 42 to a code below 42. The shell of the task gets the same
# signal as the program. It must survive the signal and wait for the program.
task='trap : TERM
"$@"
code=$?
if [ "$code" -gt 0 ] && [ "$code" -lt 42 ]; then code=$((code + 42)); fi
exit "$code"'

# Processes that save together end together. If one process fails, the others wait for it. srun kills them
# after {wait} s.
srun --cpus-per-task={cpus} --kill-on-bad-exit=0 --wait={wait} bash -c "$task" task \\
  {line}
status=$?
if [ "$status" -gt 42 ] && [ "$status" -lt 84 ]; then status=$((status - 42)); fi

# After scancel, a run also saves and ends with 42. But a cancelled job must not be requeued. SLURM reports
#   RUNNING               after the warning signal, and after scancel --signal=TERM,
#   COMPLETING/TimeLimit  if the save ended after the limit, within KillWait,
#   COMPLETING/None       after scancel, and if SLURM requeues the job itself,
#   and also PreemptTime  if another job takes the nodes and the partition gives no time for a save.
# A busy SLURM may need some time to answer. If it never answers, the job is not requeued. Then the user may
# have to submit a saved run again. That is cheaper than a cancelled job that still uses machines.
requeue() {{
  local pause state
  trap "" TERM # a late SIGTERM goes to each process of the job, but it must not end squeue or scontrol
  for pause in 5 10 20 0; do
    state=$(squeue -h -j "$SLURM_JOB_ID" -o %T/%r)
    if [ "$state" = COMPLETING/None ]; then
      state+=$(scontrol show job "$SLURM_JOB_ID" | grep -o " PreemptTime=[0-9]")
    fi
    case $state in
      RUNNING/* | COMPLETING/TimeLimit | *PreemptTime*) scontrol requeue "$SLURM_JOB_ID" && return ;;
      ?*)
        echo "job $SLURM_JOB_ID is $state: it was cancelled, or SLURM requeues it itself" >&2
        return
        ;;
    esac
    sleep "$pause"
  done
  echo "job $SLURM_JOB_ID is not requeued: SLURM does not answer. It is saved: submit this script again" >&2
}}

# 42: the run was stopped and saved. The requeued job waits for free nodes and resumes in the same workdir.
if [ "$status" -eq 42 ]; then requeue; fi
exit "$status"
"""


def script(line, args, log):
  """Returns the text of the sbatch script.

  Args:
    line: words of the command, from `command.build`.
    args: the parsed flags of the launcher, with a `job_name`.
    log: path of the log. It may contain %j, the job number of SLURM.
  Raises:
    ValueError: if a value contains characters that a directive cannot contain.
  """
  tasks = max(args.gpus_per_node, 1)
  directives = {
    "job-name": args.job_name,
    "output": log,
    "open-mode": "append",  # a requeued job continues its own log
    "nodes": args.nodes,
    "ntasks-per-node": tasks,
    "cpus-per-task": args.cpus_per_task,
    "gpus-per-node": args.gpus_per_node or None,
    "mem": args.mem,
    "time": args.time,
    "signal": f"TERM@{args.signal_before}",  # without "B:": only the processes get it, not the shell
    "partition": args.partition,
    "account": args.account,
    "qos": args.qos,
    "constraint": args.constraint,
  }
  given = {name: str(value) for name, value in directives.items() if value not in (None, "")}
  for name, value in given.items():
    if re.search(r"[\s\"'\\#]", value):
      raise ValueError(
        f"{value!r}: a directive (#SBATCH --{name}) cannot contain blanks, quotes, \\ or #; change --{name}"
      )
  return _SCRIPT.format(
    directives="\n".join(
      [f"#SBATCH --{name}={value}" for name, value in given.items()] + ["#SBATCH --requeue"]
    ),
    root=shlex.quote(str(command.ROOT)),
    setup="\n".join(args.setup),
    wait=args.signal_before,
    cpus=args.cpus_per_task,
    line=shlex.join(line),
  )


def main(argv):
  args, words = _parser().parse_known_args(argv)
  line = command.build(words)
  for name, least in (("nodes", 1), ("gpus_per_node", 0), ("cpus_per_task", 1), ("signal_before", 1)):
    if getattr(args, name) < least:
      raise ValueError(f"--{name}={getattr(args, name)}: expected {least} or more")
  if args.dry_run:
    print(shlex.join(line))
    return
  args.job_name = args.job_name or command.run_name(line)
  path = command.ROOT / (args.script or f"runs/slurm/{args.job_name}.sbatch")
  text = script(line, args, path.parent / f"{args.job_name.replace('%', '%%')}-%j.log")
  path.parent.mkdir(parents=True, exist_ok=True)  # SLURM does not create the folder of a log
  try:
    with path.open("x") as file:
      file.write(text)
  except FileExistsError:
    raise ValueError(
      f"{path} exists: submit this file with sbatch, remove it, or name another file with --script"
    ) from None
  print(f"wrote {path}", flush=True)
  if args.submit:
    _submit(path)


def _submit(path):
  try:
    status = subprocess.run(["sbatch", str(path)], check=False).returncode
  except FileNotFoundError:
    raise ValueError(f"sbatch is not on this machine: run `sbatch {path}` on the cluster") from None
  if status:
    raise ValueError(f"sbatch {path} ended with exit code {status}; expected 0")


def _parser():
  parser = command.Parser(prog="launch/slurm.py", description=__doc__)
  parser.add_argument(
    "--dry_run", action="store_true", help="print the command of one process and write no file"
  )
  parser.add_argument("--submit", action="store_true", help="submit the script with sbatch")
  parser.add_argument(
    "--script", help="file to write (default: runs/slurm/<job name>.sbatch); logs are in the same folder"
  )
  parser.add_argument("--job_name", help="name of the job (default: last part of the workdir)")
  parser.add_argument("--nodes", type=int, default=1, help="number of nodes (default: %(default)s)")
  parser.add_argument(
    "--gpus_per_node",
    type=int,
    default=8,
    help="GPUs per node, with one process each; 0: one process on a CPU (default: %(default)s)",
  )
  parser.add_argument("--cpus_per_task", type=int, default=8, help="CPUs per process (default: %(default)s)")
  parser.add_argument("--mem", help="memory per node in the format of SLURM, such as 200G")
  parser.add_argument(
    "--time", default="24:00:00", help="time limit in the format of SLURM (default: %(default)s)"
  )
  parser.add_argument(
    "--signal_before",
    type=int,
    default=120,
    help="seconds before the time limit at which the run saves and stops (default: 120)",
  )
  for name in ("partition", "account", "qos", "constraint"):
    parser.add_argument(f"--{name}")
  parser.add_argument(
    "--setup",
    action="append",
    default=[],
    metavar="COMMAND",
    help="shell command that runs before the training, such as 'source .venv/bin/activate'; may be repeated",
  )
  return parser


if __name__ == "__main__":
  sys.exit(command.report_errors(main, sys.argv[1:]))

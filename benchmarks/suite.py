"""Runs all benchmarks of the pre-training step and writes their lines to a file. Run it once per machine.

    python -m benchmarks.suite --out=benchmarks/results/h200.jsonl

The suite is for a GPU. It times all model sizes with several batch sizes, the levers, taller pictures, the
mask sampler, the step in PyTorch (eager and compiled), and training with its loader on packed pictures of
synthetic people. Each benchmark runs in its own process. If one fails, the file gets a line with its error,
and the others still run. The numbers that have a goal in docs/performance.md come first, because the time on
a machine may end before all benchmarks have run.
"""

import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

from benchmarks import measure

_ROOT = pathlib.Path(__file__).parents[1]


def parse_args(argv=None):
  """Reads the command line."""
  parser = measure.make_parser(__doc__)
  parser.add_argument(
    "--out", required=True, type=pathlib.Path, metavar="FILE", help="new file for the lines of JSON"
  )
  parser.add_argument("--no_rival", action="store_true", help="skip the benchmarks that need PyTorch")
  parser.add_argument("--dry_run", action="store_true", help="print the commands without running them")
  return parser.parse_args(argv)


def size_commands(*sizes):
  """Returns the commands that time the step with all batch sizes.

  Here and in the functions below, a command is the list of words after `python -m`.
  """
  batches = {"S": (256, 512, 1024), "B": (256, 512, 1024), "L": (256, 512), "H": (128, 256)}
  return [
    ["benchmarks.pretrain_step", f"--size={size}", f"--batch={batch}"]
    for size in sizes
    for batch in batches[size]
  ]


def lever_commands():
  """Returns the commands that time the levers, taller pictures and parts of the step."""
  levers = ["scan", "attention", "remat_none", "remat_elementwise", "remat_full", "accumulate", "blockwise"]
  settings = [
    ["--size=B", "--batch=512", "--levers", *levers, "one_view", "sampler"],
    ["--size=B", "--batch=256", "--levers", "dtype"],
    ["--size=L", "--batch=256", "--levers", "scan", "attention", "remat_none"],
    ["--size=B", "--batch=256", "--set=model.image_size=(384, 128)"],
    ["--size=B", "--batch=512", "--forward_only"],
    ["--size=B", "--batch=256", "--sampler_only"],
    ["--size=B", "--batch=1024", "--sampler_only"],
  ]
  return [["benchmarks.pretrain_step", *words] for words in settings]


def rival_commands():
  """Returns the commands that need PyTorch."""
  return [
    ["benchmarks.rival_torch", f"--size={size}", f"--batch={batch}", *more]
    for size, batch in (("B", 256), ("B", 512), ("L", 256))
    for more in ([], ["--torch_compile"], ["--forward_only"])
  ]


def loader_commands(folder, num_pictures=20_000):
  """Returns the commands that draw people, pack them in a new folder and train with the loader."""
  # The pictures have the same size as in `input_speed`. They are held in memory, because then all processors
  # draw in parallel.
  drawn = [f"--num_train={num_pictures}", "--image_size=380x160", "--set=hold_in_memory=True"]
  pack = ["hap_jax.cli", "prepare", "synthetic", "--format=tfds", "--split=train", f"--out={folder}", *drawn]
  packed = [f"--set=data.root={folder}", "--set=data.source=tfds", "--batch=256"]
  variants = ([], ["--set=data.workers=14"], ["--set=data.augment=device"])
  return [pack, *(["benchmarks.end_to_end", *packed, *more] for more in variants)]


def run(words, out):
  """Runs one command and adds its lines to `out`. If it fails, adds a line with the error.

  Returns:
    True if the command succeeded.
  """
  done = subprocess.run([sys.executable, "-m", *words], cwd=_ROOT, capture_output=True, text=True)
  lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
  package, _, name = words[0].partition(".")
  has_failed = done.returncode != 0 or (package == "benchmarks" and not lines)
  if has_failed:
    reason = " ".join(done.stderr.split())[-500:]  # a traceback ends with the error
    lines.append(json.dumps({"bench": name, "failed": shlex.join(words), "error": reason}))
  with out.open("a") as file:
    file.writelines(f"{line}\n" for line in lines)
  return not has_failed


def main(argv=None):
  args = parse_args(argv)
  if args.out.exists():
    raise SystemExit(f"error: --out={args.out} exists; expected a new file: give another name")
  with tempfile.TemporaryDirectory() as folder:
    commands = size_commands("B", "L") + ([] if args.no_rival else rival_commands())
    commands += loader_commands(pathlib.Path(folder, "people")) + size_commands("S", "H") + lever_commands()
    if args.dry_run:
      print("\n".join(shlex.join(["-m", *words]) for words in commands))
      return
    results = []
    for number, words in enumerate(commands, 1):
      print(f"{number}/{len(commands)} {shlex.join(words)}", file=sys.stderr, flush=True)
      results.append(run(words, args.out))
  if not all(results):
    raise SystemExit(
      f"error: {results.count(False)} of {len(results)} commands failed; see their lines in {args.out}"
    )


if __name__ == "__main__":
  main()

"""Runs every benchmark of the pre-training step and adds their lines to a file, one command a machine.

    python -m hap_jax.bench.suite --out=hap_jax/bench/results/h200.jsonl

For a GPU: every size at several batches, the levers, taller pictures, the sampler, the rival eager and
compiled, training with its loader from packed people that are drawn first. Each benchmark is a process of its
own; one that fails leaves a line that says so, and the others still run. Table of the file:
`python -m hap_jax.bench.report FILE`.
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

# Pictures of the loader's data set, of the size of those that `input_speed` reads.
_NUM_PICTURES, _PICTURE = 20_000, "380x160"


def parse_args(argv=None):
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--out", required=True, type=pathlib.Path, metavar="FILE", help="new file of lines")
  parser.add_argument("--no_rival", action="store_true", help="where PyTorch is not installed")
  parser.add_argument("--dry_run", action="store_true", help="print the commands, run none")
  return parser.parse_args(argv)


def step_commands():
  """Returns the commands of the step alone: words after `python -m hap_jax.bench.`."""
  batches = {"S": (256, 512, 1024), "B": (256, 512, 1024), "L": (256, 512), "H": (128, 256)}
  levers = [
    "scan",
    "attention",
    "remat_none",
    "remat_elementwise",
    "remat_full",
    "accumulate",
    "blockwise",
    "one_view",
    "sampler",
  ]
  commands = [
    ["pretrain_step", f"--size={size}", f"--batch={batch}"]
    for size, tried in batches.items()
    for batch in tried
  ]
  commands.append(["pretrain_step", "--size=B", "--batch=512", "--levers", *levers])
  commands.append(["pretrain_step", "--size=B", "--batch=256", "--levers", "dtype"])
  commands.append(["pretrain_step", "--size=L", "--batch=256", "--levers", "scan", "attention", "remat_none"])
  commands.append(["pretrain_step", "--size=B", "--batch=256", "--image_size=384x128"])
  commands.append(["pretrain_step", "--size=B", "--batch=512", "--forward_only"])
  commands += [["pretrain_step", "--size=B", f"--batch={batch}", "--sampler_only"] for batch in (256, 1024)]
  return commands


def rival_commands():
  """Returns the commands that need PyTorch."""
  return [
    ["rival_torch", f"--size={size}", f"--batch={batch}", *more]
    for size, batch in (("B", 256), ("B", 512), ("L", 256))
    for more in ([], ["--torch_compile"], ["--forward_only"])
  ]


def loader_commands(folder):
  """Returns the commands that read the packed data set in a folder."""
  return [
    ["end_to_end", f"--set=data.root={folder}", "--set=data.source=tfds", "--set=batch_size=256", *more]
    for more in ([], ["--set=data.workers=14"], ["--set=data.augment=device"])
  ]


def run(words, out):
  """Runs one benchmark and adds its lines, or one that says how it failed; returns whether it did not."""
  command = [sys.executable, "-m", f"hap_jax.bench.{words[0]}", *words[1:]]
  done = subprocess.run(command, capture_output=True, text=True)
  lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
  if done.returncode or not lines:
    told = " ".join(done.stderr.split())[-500:]
    lines.append(json.dumps({"bench": words[0], "failed": shlex.join(words), "error": told}))
  with out.open("a") as file:
    file.writelines(f"{line}\n" for line in lines)
  return done.returncode == 0


def make_data(folder):
  """Returns the command that draws and packs people for the loader."""
  words = ["prepare", "synthetic", "--format=tfds", f"--out={folder}", f"--num_train={_NUM_PICTURES}"]
  return [sys.executable, "-m", "hap_jax.cli", *words, f"--image_size={_PICTURE}"]


def main(argv=None):
  args = parse_args(argv)
  if args.out.exists():
    raise SystemExit(f"error: --out={args.out} exists; results are added to no older file: give another name")
  with tempfile.TemporaryDirectory() as folder:
    data = pathlib.Path(folder, "people")
    commands = step_commands() + ([] if args.no_rival else rival_commands()) + loader_commands(data)
    if args.dry_run:
      print(shlex.join(make_data(data)[1:]))
      print("\n".join(shlex.join(["-m", f"hap_jax.bench.{words[0]}", *words[1:]]) for words in commands))
      return
    subprocess.run(make_data(data), check=True)
    results = []
    for number, words in enumerate(commands, 1):
      print(f"{number}/{len(commands)} {shlex.join(words)}", file=sys.stderr, flush=True)
      results.append(run(words, args.out))
  if not all(results):
    raise SystemExit(
      f"error: {results.count(False)} of {len(results)} failed; their lines in {args.out} say how"
    )


if __name__ == "__main__":
  main()

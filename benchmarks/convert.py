"""Times a conversion with its proof, one line of JSON: python -m benchmarks.convert --to=hf-vit. Linux."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from benchmarks import measure
from hap_jax.convert import families, names, read, run, write
from hap_jax.io import torch_writer
from hap_jax.models import posemb, vit

_GRID, _PATCH = (16, 8), 16
_DECODER_WIDTH, _DECODER_DEPTH = 512, 8


def parse_args(argv=None):
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--variant", choices=tuple(vit.VARIANTS), default="B")
  parser.add_argument("--family", choices=("hap", "timm"), default="hap", help="of the file that is made")
  parser.add_argument("--to", choices=write.targets(), default=write.OWN)
  parser.add_argument("--real_class", action="store_true", help="compare in the target's PyTorch class, too")
  parser.add_argument("--measure", nargs=2, metavar=("SRC", "DST"), help=argparse.SUPPRESS)
  return parser.parse_args(argv)


def make_state(family, variant):
  """Makes a state dict with a family's names and a variant's sizes, weights as at a start of training."""
  rng = np.random.default_rng(0)
  width = vit.VARIANTS[variant].width
  sizes = {"D": width, "E": _DECODER_WIDTH, "F": 4 * width, "G": 4 * _DECODER_WIDTH, "P": _PATCH}
  sizes["T"] = 1 + _GRID[0] * _GRID[1]
  table = names.table(families.load(family), depth=vit.VARIANTS[variant].depth, decoder_depth=_DECODER_DEPTH)
  state = {}
  for row in table:
    shape = [read.size_of(token, sizes) for token in row.shape]
    if row.ours.endswith("/pos_embed"):
      state[row.reference] = posemb.sincos_table(_GRID, shape[-1])
    else:
      state[row.reference] = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
      if row.ours.endswith("/scale"):
        state[row.reference] += 1
  return state


def time_conversion(source, out, to, real):
  """Converts in this process; returns its CPU seconds and the growth of its peak memory in bytes."""
  pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins here, behind the imports
  before = _peak_bytes()
  report, cpu, wall = measure.timed(lambda: run.convert(source, out, to=to, real=real))
  proof = report["proof"]
  return {
    "cpu_seconds": round(cpu, 2),
    "wall_seconds": round(wall, 2),
    "peak_bytes": _peak_bytes() - before,
    "max_abs_error": proof["max_abs_error"],
    "real_class": proof["real_class"],
    "parameters": report["parameters"],
  }


def _peak_bytes():
  """Returns the largest resident size so far; what a file's pages take is part of it."""
  lines = pathlib.Path("/proc/self/status").read_text().splitlines()
  return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def benchmark(args):
  """Makes a file and converts it in a fresh process on one core; returns what is printed."""
  with tempfile.TemporaryDirectory() as folder:
    source = pathlib.Path(folder, "source.pth")
    state = make_state(args.family, args.variant)
    tensor_bytes = sum(array.nbytes for array in state.values())
    torch_writer.save(source, {"model": state, "arch": "pose_mae_vit"})
    del state
    out = pathlib.Path(folder, "out" if write.makes_folder(args.to) else "out.pth")
    words = [sys.executable, "-m", "benchmarks.convert", f"--to={args.to}", "--measure", source, out]
    words += ["--real_class"] if args.real_class else []
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(["taskset", "-c", str(core), *words], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
  return {
    "bench": "convert",
    "variant": args.variant,
    "family": args.family,
    "to": args.to,
    **found,
    "tensor_bytes": tensor_bytes,
    "peak_over_tensors": round(found["peak_bytes"] / tensor_bytes, 2),
    "machine": measure.machine(),
    "versions": measure.versions("numpy"),
  }


def main(argv=None):
  args = parse_args(argv)
  print(
    json.dumps(time_conversion(*args.measure, args.to, args.real_class) if args.measure else benchmark(args))
  )


if __name__ == "__main__":
  main()

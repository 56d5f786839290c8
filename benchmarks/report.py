"""Collects results into one Markdown table: python -m benchmarks.report [FILE ...].

Without files it takes all of benchmarks/results. Each line of JSON becomes a row; what a benchmark reaches
comes first, then what it was, and on what.
"""

import argparse
import json
import pathlib

RESULTS = pathlib.Path(__file__).parent / "results"

# What a benchmark found, first; keys as printed, in the order in which they are told.
_FOUND = {
  "pretrain_step": (
    "images_per_s",
    "wall_seconds_median",
    "cpu_seconds_median",
    "gflop_per_image",
    "mfu.measured",
    "mfu.datasheet",
    "memory_bytes.temporaries_per_image",
    "compile_seconds",
    "compile_cpu_seconds",
    "compile_cached_seconds",
    "recompiles_after_step_2",
    "host_syncs_per_step",
  ),
  "rival_torch": ("ratio", "ratio_of"),
  "end_to_end": ("share", "images_per_s", "step_images_per_s"),
  "input_speed": ("images_per_cpu_s", "images_per_cpu_s_without_grain", "grain_share"),
  "mask_sampler": ("images_per_s", "images_per_cpu_s"),
  "finetune_step": ("ratio",),
  "retrieval": ("cpu_seconds", "peak_gib"),
  "synthetic_people": ("images_per_cpu_s",),
  "convert": ("cpu_seconds", "peak_over_tensors"),
  "pretraining_gain": ("difference", "interval_95"),
}
_WHAT = (
  "what",
  "variant",
  "size",
  "image_size",
  "batch",
  "dtype",
  "scan",
  "attention",
  "remat",
  "accumulate",
)
_WHAT += ("torch_compile", "augment", "source", "width", "policy")


def parse_args(argv=None):
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("files", nargs="*", type=pathlib.Path, metavar="FILE", help="of lines of JSON")
  return parser.parse_args(argv)


def read(paths):
  """Reads results.

  Args:
    paths: files, one JSON object a line or one in all.
  Returns:
    [(name of the file, {key: value}), ...] in the files' order.
  Raises:
    ValueError: naming file and line that is no result.
  """
  found = []
  for path in paths:
    text = path.read_text()
    for number, line in enumerate(text.splitlines(), 1):
      if not line.strip():
        continue
      try:
        result = json.loads(line)
      except ValueError as error:
        raise ValueError(f"{path}:{number}: not a line of JSON ({error})") from error
      if not isinstance(result, dict) or "bench" not in result:
        raise ValueError(f"{path}:{number}: expected an object with the key bench, as benchmarks print it")
      found.append((path.name, result))
  return found


def get(result, key):
  """Returns result[a][b] for the key "a.b"; None where there is none."""
  for name in key.split("."):
    result = result.get(name) if isinstance(result, dict) else None
  return result


def told(value):
  """Writes a value for a cell."""
  if isinstance(value, bool):
    return "yes" if value else "no"
  if isinstance(value, float):
    return f"{value:.4g}"
  if isinstance(value, int):
    return f"{value:,}"
  if isinstance(value, list):
    return ", ".join(map(told, value))
  return str(value)


def facts(result, keys):
  """Writes "name value" for the keys that a result has and that are not null."""
  values = ((key, get(result, key)) for key in keys)
  return "; ".join(f"{key.replace('_', ' ')} {told(value)}" for key, value in values if value is not None)


def where(result):
  """Tells device, load of the machine, flags of XLA and versions."""
  device = result.get("device", "")
  machine = result.get("machine", {})
  if isinstance(device, dict):
    device = device["kind"] if device["count"] == 1 else f"{device['count']} x {device['kind']}"
  parts = [part for part in (device, machine.get("cpu", "")) if part]
  if machine:
    parts.append(f"{machine['cores']} cores, load {machine['load']}")
  if machine.get("xla_flags"):
    parts.append(f"`{machine['xla_flags']}`")
  versions = result.get("versions", {})
  parts.extend(f"{name} {versions[name]}" for name in ("jax", "torch") if name in versions)
  return ", ".join(parts) or "not stated"


def table(results):
  """Writes results from `read` as a Markdown table."""
  rows = ["| benchmark | what | found | where | file |", "| --- | --- | --- | --- | --- |"]
  for name, result in results:
    bench = result["bench"]
    # Of a benchmark that is not known here: every number that stands at the top.
    plain = [k for k, v in result.items() if isinstance(v, int | float) and k not in _WHAT]
    failed = f"failed: {result['error'][:100]}" if "error" in result else ""
    found = failed or facts(result, _FOUND.get(bench, plain))
    rows.append(f"| {bench} | {facts(result, _WHAT)} | {found} | {where(result)} | {name} |")
  return "\n".join(rows)


def main(argv=None):
  args = parse_args(argv)
  print(table(read(args.files or sorted(RESULTS.glob("*.json*")))))


if __name__ == "__main__":
  main()

"""Starting weights (`config.init_from`) from another run or from another project."""

import pathlib

from hap_jax.convert import read as convert
from hap_jax.convert.selection import Selection


def read(path, *, key="", prefix="", encoder_only=False):
  """Reads the file or folder that `config.init_from` names, see `convert.read.read`.

  Args:
    path: a .pth or .safetensors file, a Hugging Face folder, or a workdir or checkpoint of this project.
    key: `config.init_key`, see `convert.selection.Selection`.
    prefix: `config.init_prefix`.
    encoder_only: `config.init_encoder_only`.
  Returns:
    `convert.weights.Weights`.
  Raises:
    ValueError: if the path does not exist or cannot be read.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise ValueError(
      f"config.init_from={path}: no such file or folder; expected a .pth or .safetensors file of MAE, HAP, "
      "ViTPose or timm, a Hugging Face folder, or a workdir of this project"
    )
  return convert.read(path, selection=Selection(key, prefix, encoder_only, of_run=True))


def lines(weights, report):
  """Returns the lines of text that a run logs about its starting weights.

  Args:
    weights: `convert.weights.Weights`.
    report: the `convert.fit.FitReport` from the task's `load`.
  """
  origin, (first, *others) = weights.lineage[0], report.lines()
  assumed = weights.description.network.get("assumed")
  return [
    f"starting from {origin['file']} ({origin['family']}): {first}",
    *([f"  read: {weights.taken}"] if weights.taken else []),
    *([f"  assumed: {assumed}"] if assumed else []),
    *(f"  {line}" for line in others),
    f"  licence of these weights: {weights.licence}",
  ]

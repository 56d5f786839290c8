"""`config.init_from`: the weights of another run or another project to start from."""

import pathlib

from hap_jax.convert import read as convert


def read(path):
  """Reads `config.init_from`: whatever conversion reads, see `convert.read.read`.

  Args:
    path: a .pth or .safetensors file, a Hugging Face folder, or a workdir or checkpoint of this project.
  Returns:
    `convert.weights.Weights`.
  Raises:
    ValueError: if there is nothing there or it cannot be read.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise ValueError(
      f"config.init_from={path}: no such file or folder; expected a .pth or .safetensors file of MAE, HAP or "
      "timm, a Hugging Face folder, or a workdir of this project"
    )
  return convert.read(path)


def lines(weights, report):
  """Returns what a run logs about its starting weights, lines of text.

  Args:
    weights: `convert.weights.Weights`. report: the `convert.fit.FitReport` of the task's `load`.
  """
  origin, (first, *others) = weights.lineage[0], report.lines()
  return [
    f"starting from {origin['file']} ({origin['family']}): {first}",
    *(f"  {line}" for line in others),
    f"  licence of these weights: {weights.licence}",
  ]

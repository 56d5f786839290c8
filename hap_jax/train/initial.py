"""`config.init_from`: the weights of another run or another project, fitted to this model."""

import dataclasses
import pathlib

from jax.tree_util import tree_leaves_with_path

from hap_jax.convert import read as convert
from hap_jax.io import checkpoint_file
from hap_jax.train import optim


@dataclasses.dataclass(frozen=True)
class InitialWeights:
  """Weights to start from.

  Attributes:
    weights: names, sizes and arrays, as the conversion gives them.
    lineage: what they come from, newest first: a list of {"file", "family", "licence", ...}.
  """

  weights: convert.Weights
  lineage: list[dict]

  def fit(self, params, description, say):
    """Puts the weights into a model's parameters and tells what went where.

    Args:
      params: the model's, nested dicts. description: the task's, for the model's grid. say: prints a line.
    Returns:
      nested dicts like `params`.
    Raises:
      ValueError: if the weights are of another model.
    """
    grid = tuple(description["model"]["grid"])
    # The official run takes MAE's encoder and begins with a decoder of its own.
    with_decoder = self.weights.family != "mae"
    fitted, report = convert.fit_to(params, self.weights, grid=grid, with_decoder=with_decoder)
    say(f"starting from {self.lineage[0]['file']} ({self.lineage[0]['family']}): {report.lines()[0]}")
    for line in report.lines()[1:]:
      say(f"  {line}")
    say(f"  licence of these weights: {self.lineage[0]['licence']}")
    return fitted


def read(path):
  """Reads `config.init_from`: an official MAE or HAP .pth file, or a workdir or checkpoint of this project.

  Args:
    path: file or folder.
  Returns:
    InitialWeights.
  Raises:
    ValueError: if there is nothing there or it cannot be read.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    return _read_own(path)
  if not path.exists():
    raise ValueError(
      f"config.init_from={path}: no such file or folder; expected an MAE or HAP .pth file, or a workdir of "
      "this project"
    )
  weights = convert.read_checkpoint(path)
  return InitialWeights(weights, [weights.lineage])


def _read_own(path):
  variables, description = checkpoint_file.read(path)
  params = variables["params"]
  lineage, data = description["lineage"], description["data"]
  trained_on = f"trained from scratch on {data['name']}: {data['licence']}"
  origin = {
    "file": str(path),
    "family": "hap_jax",
    "step": description["step"],
    "task": description["task"],
    "licence": lineage[0]["licence"] if lineage else trained_on,
  }
  model = description["model"]
  weights = convert.Weights(
    params=params,
    source_names={optim.path_name(keys): optim.path_name(keys) for keys, _ in tree_leaves_with_path(params)},
    family="hap_jax",
    grid=tuple(model["grid"]),
    grid_from="the checkpoint's description",
    patch=model["patch"],
    width=model["width"],
    depth=model["depth"],
    num_heads=model["num_heads"],
    unused=(),
    lineage=origin,
  )
  return InitialWeights(weights, [origin, *lineage])

"""`config.init_from`: the weights of another run or another project, fitted to this model."""

import dataclasses
import pathlib

from hap_jax.convert import fit
from hap_jax.convert import read as convert
from hap_jax.convert.weights import Weights


@dataclasses.dataclass(frozen=True)
class InitialWeights:
  """Weights to start from.

  Attributes:
    weights: names, sizes and arrays, as the conversion gives them.
  """

  weights: Weights

  @property
  def lineage(self):
    """What they come from, newest first: a list of {"file", "family", "licence", ...}."""
    return list(self.weights.lineage)

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
    with_decoder = _trained_as(self.weights) not in ("mae", "hf-vitmae")
    if with_decoder:
      self._check_decoder(description["model"].get("decoder"))
    fitted, report = fit.fit_to(params, self.weights, grid=grid, with_decoder=with_decoder)
    say(f"starting from {self.lineage[0]['file']} ({self.lineage[0]['family']}): {report.lines()[0]}")
    for line in report.lines()[1:]:
      say(f"  {line}")
    say(f"  licence of these weights: {self.weights.licence}")
    return fitted

  def _check_decoder(self, wanted):
    """Raises ValueError if both have a decoder, of other numbers of heads, which no tensor's shape tells."""
    own = self.weights.decoder
    if wanted and own and own["num_heads"] not in (None, wanted["num_heads"]):
      raise ValueError(
        f"{self.lineage[0]['file']}: its decoder has {own['num_heads']} heads, but "
        f"config.model.decoder_heads={wanted['num_heads']}: change that, or config.init_from"
      )


def _trained_as(weights):
  """Returns the family of the run that made the weights; conversions since then stand before it."""
  return next((o for o in weights.lineage if "step" in o), weights.lineage[-1])["family"]


def read(path):
  """Reads `config.init_from`: whatever conversion reads, see `convert.read.read`.

  Args:
    path: a .pth or .safetensors file, a Hugging Face folder, or a workdir or checkpoint of this project.
  Returns:
    InitialWeights.
  Raises:
    ValueError: if there is nothing there or it cannot be read.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise ValueError(
      f"config.init_from={path}: no such file or folder; expected a .pth or .safetensors file of MAE, HAP or "
      "timm, a Hugging Face folder, or a workdir of this project"
    )
  return InitialWeights(convert.read(path))

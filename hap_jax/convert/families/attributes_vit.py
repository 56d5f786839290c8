"""Files of the official HAP code for pedestrian attributes: a classifier on the mean of the patch tokens."""

from hap_jax.convert import numpy_vit, official, rows
from hap_jax.convert.family import CERTAIN, NO, Family, Preference
from hap_jax.convert.numpy_layers import linear, pair
from hap_jax.convert.outputs import Outputs
from hap_jax.data.sources import pa100k, peta, rapv1

_CLASSIFIER = "classifier.logits.0"
# Official files do not name their attributes. The number of attributes shows the data set.
_OFFICIAL = {len(source.ATTRIBUTES): source.ATTRIBUTES for source in (pa100k, rapv1, peta)}


def _recognise(source):
  return CERTAIN if official.has_names(source) and f"{_CLASSIFIER}.weight" in source.state else NO


def _network(variables, config, recorded):
  del config, recorded
  params = variables["params"]
  return {"num_attributes": len(params["classifier"]["bias"])} if "classifier" in params else {}


def _classes(network, config):
  del config
  names = _OFFICIAL.get(network.get("num_attributes"))
  return {"attribute_names": list(names)} if names else {}


def _content(weights, state):
  """Returns the content that the official loader expects.

  The loader needs the names of a DataParallel model, which begin with "module.". It also prints "epoch" and
  "metric", so both entries must exist.
  """
  del weights
  parallel = {f"module.{name}": array for name, array in state.items()}
  return {"state_dicts": parallel, "epoch": "not recorded", "metric": "not recorded"}


def _in_numpy(forward):
  classifier = pair(forward.network.module(_CLASSIFIER, "classifier"))
  return {"logits": linear(forward.patches.mean(axis=1), classifier)}


def _in_jax(model, variables, batch, description):
  del description
  return {"logits": model.apply(variables, batch.image)}


FAMILY = Family(
  "attributes-vit",
  rows.ENCODER + rows.linear(_CLASSIFIER, "classifier", "C", "D"),
  _recognise,
  numpy_vit.official,
  licence=official.OF_HAP,
  made_from=official.made_from_fine_tuned_hap("pa100k, rapv1 or peta"),
  task="attributes",
  prefers=(Preference("state_dicts", "state_dict_ema", "HAP"),),
  backbone="backbone.",
  grids={192: ((16, 12), "attributes at 256 x 192")},
  pixels_from="published attributes-vit code",
  network=_network,
  classes=_classes,
  content=_content,
  outputs=Outputs(needs={"logits": "classifier"}, in_numpy=_in_numpy, in_jax=_in_jax),
)

"""Rows, grids and licences that the two ReID families of the official HAP code share."""

from hap_jax.convert import official, rows

HEAD = rows.linear("head", "head", "C", "D")
# {number of patches: (grid, text about the image size)}
GRIDS = {128: ((16, 8), "ReID at 256 x 128"), 192: ((24, 8), "ReID at 384 x 128")}
MADE_FROM = official.made_from_fine_tuned_hap("msmt17 or market1501")


def network(variables, config, recorded):
  """Returns `Description.network` of a ReID model.

  The dict says whether the model has a locality enhanced module. It also has the number of persons if the
  model has a classifier. For the arguments, see `family.Family.network`.
  """
  del config, recorded
  params = variables["params"]
  found = {"locality": "conv_head_0" in params}
  # A file with only the encoder has no head. Then the number of persons is unknown.
  return found | ({"num_classes": len(params["head"]["bias"])} if "head" in params else {})

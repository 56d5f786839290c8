"""What the two families of the official HAP code for person ReID share."""

from hap_jax.convert import official, rows

HEAD = rows.linear("head", "head", "C", "D")
# Of pictures of 256 x 128 and 384 x 128.
GRIDS = {128: ((16, 8), "ReID at 256 x 128"), 192: ((24, 8), "ReID at 384 x 128")}
MADE_FROM = official.made_from_fine_tuned_hap("msmt17 or market1501")


def network(params, config, recorded):
  """Returns `Description.network`: whether there is a locality enhanced module, and the number of persons.

  Arguments as of `family.Family.network`.
  """
  del config, recorded
  found = {"locality": "conv_head_0" in params}
  return found | ({"num_classes": len(params["head"]["bias"])} if "head" in params else {})

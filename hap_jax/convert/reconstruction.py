"""Sizes and prediction of the decoder, for all families of masked image modelling."""

from hap_jax.convert import numpy_vit
from hap_jax.convert.outputs import Outputs

_PUBLISHED_HEADS = {512: 16}  # {width: number of heads} of the published MAE and HAP decoders


def network(variables, config, recorded):
  """Returns {"decoder": its sizes, or None if there is no decoder}.

  Args:
    variables: this project's variables, {"params": nested dicts}.
    config: the content of config.json in a Hugging Face folder, or {} for other files.
    recorded: `network` of a recorded Description, or {} if there is none. Its number of heads has
      priority, because no shape shows this number.
  """
  params = variables["params"]
  if "decoder" not in params:
    return {"decoder": None}
  block = params["decoder"]["blocks"]
  width, hidden = block["mlp"]["fc1"]["kernel"].shape[1:]
  heads = (recorded.get("decoder") or {}).get("num_heads") or config.get("decoder_num_attention_heads")
  sizes = {"width": width, "depth": len(block["norm1"]["bias"]), "mlp_ratio": hidden / width}
  return {"decoder": {**sizes, "num_heads": heads or _PUBLISHED_HEADS.get(width)}}


def _in_numpy(forward):
  tokens = forward.normed(forward.encode(forward.batch.ids_keep))
  pred = numpy_vit.decode(
    forward.network.decoder,
    tokens,
    forward.batch.ids_restore,
    num_heads=forward.sizes["decoder"]["num_heads"],
    grids=forward.grids,
    epsilon=forward.epsilon,
  )
  return {"pred": pred}


def _in_jax(model, variables, batch, description):
  del description
  found = model.apply(variables, batch.image, batch.ids_keep[:, None], batch.ids_restore[:, None])
  return {"pred": found.pred[:, 0]}


OUTPUTS = Outputs(needs={"pred": "decoder"}, in_numpy=_in_numpy, in_jax=_in_jax)

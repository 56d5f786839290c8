"""SMPL's parameters of drawn people, for the body of `smpl_body`.

The bones of that body change with its shape as the bones of drawn people do, so the joints are met exactly.
The skin is met approximately, because a person's thicknesses are products of several properties.
"""

import functools

import numpy as np

from hap_jax.synthetic import bare_body, body, smpl_body

# The shape directions that move joints. The others change only the skin.
_OF_BONES = [smpl_body.SHAPES.index(name) for name in ("stature", "legs", "arms", "trunk", "shoulders", "hips")]
_OF_SKIN = [k for k in range(len(smpl_body.SHAPES)) if k not in _OF_BONES]


def fit_betas(person):
  """Returns the shape of our own body that is nearest to a person.

  Args:
    person: body.Body.
  Returns:
    [10] float64. With it, the bones have the person's lengths, and the distances between the vertices of the
    two skins have the smallest sum of squares that these bones allow.
  """
  space = _space()
  betas = np.zeros(len(smpl_body.SHAPES))
  betas[_OF_BONES] = space["bones_inverse"] @ (person.offsets - space["offsets"]).ravel()
  skin = bare_body.surface(person) - space["skin"] - betas @ space["skin_steps"]
  betas[_OF_SKIN] = space["skin_inverse"] @ skin.ravel()
  return betas


@functools.cache
def _space():
  """Returns the mean body, its changes with the shape, and the inverses for least squares."""
  template, _, vertex_steps, _ = smpl_body.shape_space()
  offsets, offset_steps = smpl_body.offset_space()
  flat = vertex_steps.reshape(len(vertex_steps), -1)
  return {
    "offsets": offsets,
    "bones_inverse": np.linalg.pinv(offset_steps[_OF_BONES].reshape(len(_OF_BONES), -1).T),
    "skin": template,
    "skin_steps": vertex_steps,
    "skin_inverse": np.linalg.pinv(flat[_OF_SKIN].T),
  }

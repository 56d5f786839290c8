"""MoveNet, Google's models for the joints of people, from files of TensorFlow.js. TensorFlow is not needed.

There are two kinds of models, recognised by the shapes of their input and output:
  one person (Lightning, Thunder)   [1, S, S, 3] pixels -> [1, 1, 17, 3]: y, x and score of each joint
  up to six people (MultiPose)      [1, H, W, 3] pixels -> [1, 6, 56]: y, x and score of each joint, then the
                                    box (ymin, xmin, ymax, xmax) and the score of the person
Pixels are 0 to 255. H and W are multiples of 32. y and x are shares of the height and of the width. The
joints are in COCO's order.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hap_jax.io import tfjs_file
from hap_jax.models import tfjs_graph

LICENCE = "Apache-2.0 (MoveNet, Google)"
MULTIPLE = 32  # sides of the pictures of MultiPose are multiples of this number
MOST_PEOPLE = 6
_JOINTS = 17
_PERSON = 3 * _JOINTS + 5  # numbers per person of MultiPose


class People(NamedTuple):
  """People in a batch of pictures. y and x are shares of the height and of the width.

  Attributes:
    keypoints: [B, 6, 17, 3] float32, y, x and score of each joint.
    box: [B, 6, 4] float32, (ymin, xmin, ymax, xmax).
    score: [B, 6] float32, the score of each person. People whom the model did not find have low scores.
  """

  keypoints: jax.Array
  box: jax.Array
  score: jax.Array


def read(path):
  """Reads a model.

  Args:
    path: the JSON file of a TensorFlow.js model, or a folder with one such file.
  Returns:
    a `tfjs_file.GraphModel`.
  Raises:
    ValueError: if the file is damaged, or if it is another model than MoveNet.
  """
  file = tfjs_file.find(path)
  if file is None:
    raise ValueError(f"{path}: expected a MoveNet model of TensorFlow.js, a .json file or its folder")
  model = tfjs_file.read(file)
  shape = tuple(MULTIPLE if side == -1 else side for side in model.input_shape)
  try:
    image = jax.ShapeDtypeStruct(shape, jnp.int32)
    found = jax.eval_shape(lambda x: tfjs_graph.apply(model, tfjs_graph.variables_of(model), x), image).shape
  except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{file}: this model cannot be computed: {' '.join(str(error).split())[:300]}"
    ) from error
  if not (_is_single(shape, found) or (model.input_shape[1:3] == (-1, -1) and found[1:] == (6, _PERSON))):
    raise ValueError(
      f"{file}: a model of another kind: it computes {list(found)} from pictures {list(model.input_shape)}, "
      f"but MoveNet computes [1, 1, {_JOINTS}, 3] or [1, {MOST_PEOPLE}, {_PERSON}]"
    )
  return model


def _is_single(shape, found):
  return shape[1] == shape[2] and found == (1, 1, _JOINTS, 3)


def side_of(model):
  """Returns S, the side of the pictures of a model for one person. None: the model is for several people."""
  return None if model.input_shape[1] == -1 else model.input_shape[1]


def facts(path, model):
  """Returns facts about a model that was read from `path`, plain JSON values.

  They are "file", "family", "licence", "lineage" (lines of text) and "digest" (SHA-256).
  """
  return {
    "file": str(path),
    "family": "movenet",
    "licence": LICENCE,
    "lineage": [f"{model.origin or path}: {LICENCE}"],
    "digest": model.digest,
  }


def variables_of(model):
  """Returns the variables for the functions below, {name: float32 array}."""
  return tfjs_graph.variables_of(model)


def find_joints(model, variables, image):
  """Finds the joints of one person per picture.

  Args:
    model: a model for one person.
    variables: from `variables_of`.
    image: [B, S, S, 3] uint8.
  Returns:
    (xy, score). `xy` is [B, 17, 2] float32, x and y as shares of S. `score` is [B, 17] float32.
  """
  found = _apply(model, variables, image)[:, 0]
  return found[..., 1::-1], found[..., 2]


def find_people(model, variables, image):
  """Finds up to six people per picture.

  Args:
    model: a model for several people.
    variables: from `variables_of`.
    image: [B, H, W, 3] uint8. H and W are multiples of 32.
  Returns:
    `People`.
  """
  found = _apply(model, variables, image)
  joints = found[..., : 3 * _JOINTS].reshape(*found.shape[:2], _JOINTS, 3)
  return People(joints, found[..., 3 * _JOINTS : -1], found[..., -1])


def _apply(model, variables, image):
  """Returns the output of the graph for each picture. The graph itself is for a batch of one picture."""
  one = lambda x: tfjs_graph.apply(model, variables, x[None].astype(np.int32))[0]  # noqa: E731
  return jax.vmap(one)(image)

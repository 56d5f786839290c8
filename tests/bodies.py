"""Random bodies in the layout of SMPL, with few vertices."""

import numpy as np

from hap_jax.data import body_model

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)


def random_body(num_vertices=40, seed=0):
  """Makes a `Body` of random numbers. The rows of its regressor and its weights have the sum 1."""
  rng = np.random.default_rng(seed)
  arrays = {
    "v_template": rng.normal(0, 0.5, (num_vertices, 3)),
    "shapedirs": rng.normal(0, 0.01, (num_vertices, 3, 10)),
    "posedirs": rng.normal(0, 0.001, (num_vertices, 3, 207)),
    "J_regressor": rng.dirichlet(np.full(num_vertices, 0.3), 24),
    "weights": rng.dirichlet(np.full(24, 0.3), num_vertices),
  }
  return body_model.Body(
    **{name: array.astype(np.float32) for name, array in arrays.items()},
    parents=np.array(PARENTS, np.int32),
    faces=rng.integers(num_vertices, size=(30, 3)).astype(np.int32),
  )


def random_set(num_vertices=40, seed=0, genders=("neutral",), **fields):
  """Makes a `BodySet` of random bodies. `fields` replaces its fields."""
  rng = np.random.default_rng(seed + 1000)
  neutral = random_body(num_vertices, seed)
  picked = np.eye(num_vertices)[rng.integers(num_vertices, size=6)]
  order = np.arange(num_vertices, dtype=np.int32)
  order[:2] = 1, 0
  defaults = {
    "name": "random",
    "licence": "Apache-2.0",
    "bodies": {
      gender: neutral if gender == "neutral" else random_body(num_vertices, seed + number)
      for number, gender in enumerate(genders)
    },
    "joint_regressor": np.concatenate([neutral.J_regressor, picked]).astype(np.float32),
    "h36m_regressor": rng.dirichlet(np.full(num_vertices, 0.3), 17).astype(np.float32),
    "mirrored": order,
  }
  return body_model.BodySet(**{**defaults, **fields})

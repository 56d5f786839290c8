"""Pooling of the tokens of a frozen encoder into one vector per picture."""

import itertools

import jax.numpy as jnp

from hap_jax.models.layers import l2_normalize

KINDS = ("cls", "mean", "stripes")
NUM_STRIPES = 4  # horizontal stripes of the picture: roughly head, chest, hips and legs


def kinds_of(encoder):
  """Returns the KINDS of pooling that a `vit.ViT` supports, as a tuple."""
  missing = set() if encoder.class_token else {"cls"}
  if encoder.grid[0] < NUM_STRIPES:
    missing.add("stripes")
  return tuple(kind for kind in KINDS if kind not in missing)


def pool(latent, grid, kind):
  """Pools an encoder's tokens after the final norm into one vector per picture with unit norm.

  Args:
    latent: `vit.Latent` of B pictures with all their L patches.
    grid: (Gh, Gw) with Gh * Gw = L.
    kind: "cls": the class token. "mean": the mean of the patch tokens. "stripes": the mean of each of
      NUM_STRIPES horizontal stripes. Each mean is scaled to unit norm, then all are concatenated.
  Returns:
    [B, D] float32, or [B, NUM_STRIPES * D] for stripes.
  Raises:
    ValueError: if the kind is not in KINDS, if it is "cls" and there is no class token, or if the grid has
      fewer rows than stripes.
  """
  if kind == "cls":
    return l2_normalize(latent.cls)
  patches = latent.patches.astype(jnp.float32)
  if kind == "mean":
    return l2_normalize(patches.mean(axis=1))
  if kind != "stripes":
    raise ValueError(f"pooling {kind!r} is not one of {', '.join(KINDS)}")
  (Gh, Gw), (B, _, D) = grid, patches.shape
  if Gh < NUM_STRIPES:
    raise ValueError(f"a grid of {Gh}x{Gw} has fewer rows than the {NUM_STRIPES} stripes; use cls or mean")
  rows = patches.reshape(B, Gh, Gw, D).mean(axis=2)
  # If Gh is not a multiple of NUM_STRIPES, the heights of the stripes differ by at most one row.
  edges = [round(i * Gh / NUM_STRIPES) for i in range(NUM_STRIPES + 1)]
  stripes = [rows[:, start:stop].mean(axis=1) for start, stop in itertools.pairwise(edges)]
  return l2_normalize(jnp.concatenate([l2_normalize(stripe) for stripe in stripes], axis=-1))

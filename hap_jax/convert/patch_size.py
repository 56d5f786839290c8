"""Resizes the patch kernels of an encoder."""

import dataclasses
import math

import numpy as np

from hap_jax.convert.names import PATCHES
from hap_jax.convert.weights import flatten, unflatten
from hap_jax.models import layers, posemb


def resize(weights, patch):
  """Resizes the patch kernels to another side, as in FlexiViT (arXiv 2212.08013, Sec. 3.4).

  A larger kernel gives the same tokens for enlarged patches as the old kernel for the patches before.
  Enlarged pictures are no real pictures, so the features of real pictures change.

  Args:
    weights: Weights.
    patch: the new side in pixels. None: the kernels keep their side.
  Returns:
    (Weights, lines of text about the change).
  Raises:
    ValueError: if the side is not a positive number or does not fit the padding of the patches, or if there
      is a decoder, which predicts the pixels of the old patches.
  """
  if patch in (None, weights.patch):
    return weights, ()
  file, old = weights.lineage[0]["file"], weights.patch
  if patch < 1:
    raise ValueError(f"--resize_patch={patch}: expected a number of pixels from 1")
  layers.check_padding(weights.description.encoder.patch_padding, patch)
  if weights.decoder is not None:
    raise ValueError(
      f"--resize_patch={patch}: the decoder of {file} predicts patches of {old} pixels: add --encoder_only"
    )
  flat = flatten(weights.params)
  flat[PATCHES] = resize_kernel(flat[PATCHES], patch)
  weights = dataclasses.replace(weights, variables={**weights.variables, "params": unflatten(flat)})
  note = f"the patch kernels were resized from {old} to {patch} pixels: the features change"
  return weights.with_encoder(patch=patch), (note,)


def resize_kernel(kernel, patch):
  """Returns a patch kernel [P*P*3, D] for patches of another side, [patch*patch*3, D] float32.

  If B is the matrix of a bilinear resize of patches, the new kernel is the pseudo-inverse of B^T times the
  old kernel. B is the product of a resize of the rows and one of the columns, and so is its pseudo-inverse.
  """
  P = math.isqrt(len(kernel) // 3)
  inverse = np.linalg.pinv(posemb.resize_matrix(P, patch, "bilinear"))  # [P, patch]
  kernel = kernel.astype(np.float64).reshape(P, P, 3, -1)
  resized = np.einsum("hi,wj,hwcd->ijcd", inverse, inverse, kernel, optimize=True)
  return resized.reshape(patch * patch * 3, -1).astype(np.float32)

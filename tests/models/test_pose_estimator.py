"""The heads of 2D pose: their convolutions equal those of PyTorch, and heat maps are float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.description import Encoder
from hap_jax.models import pose_estimator

B, H, W, IN, OUT = 2, 5, 3, 7, 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, H, W, IN)).astype(np.float32)
DECONVOLUTION = RNG.normal(0, 0.2, (4, 4, IN, OUT)).astype(np.float32)
KERNEL = RNG.normal(0, 0.2, (3, 3, IN, OUT)).astype(np.float32)


def channels_first(x):
  import torch

  return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def transposed_convolution_by_loop(x, kernel):
  """Adds each input pixel, times the kernel, to its 4 x 4 output pixels."""
  rows, columns = 2 * x.shape[1], 2 * x.shape[2]
  found = np.zeros(
    (len(x), rows + 2, columns + 2, kernel.shape[-1])
  )  # with the border that padding 1 cuts off
  for i, j in np.ndindex(x.shape[1:3]):
    found[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum("bc,yxco->byxo", x[:, i, j], kernel)
  return found[:, 1:-1, 1:-1]


def test_transposed_convolution_equals_a_loop():
  found = jax.jit(pose_estimator.transposed_convolution)(X, DECONVOLUTION)
  expected = transposed_convolution_by_loop(X, DECONVOLUTION)
  np.testing.assert_allclose(found, expected, atol=2e-6, rtol=0)


def test_transposed_convolution_equals_pytorch():
  torch = pytest.importorskip("torch")
  weight = torch.from_numpy(np.ascontiguousarray(DECONVOLUTION.transpose(2, 3, 0, 1)))
  expected = torch.nn.functional.conv_transpose2d(channels_first(X), weight, stride=2, padding=1)
  found = jax.jit(pose_estimator.transposed_convolution)(X, DECONVOLUTION)
  np.testing.assert_allclose(found, expected.numpy().transpose(0, 2, 3, 1), atol=2e-6, rtol=0)


def test_gradient_of_the_transposed_convolution_equals_the_loop():
  """The function is linear, so the scalar product with its gradient is the function's own value."""
  cotangent = RNG.normal(size=(B, 2 * H, 2 * W, OUT)).astype(np.float32)

  def product(*arguments):
    return jnp.sum(pose_estimator.transposed_convolution(*arguments) * cotangent)

  expected = np.sum(transposed_convolution_by_loop(X, DECONVOLUTION) * cotangent)
  gradients = jax.jit(jax.grad(product, argnums=(0, 1)))(X, DECONVOLUTION)
  for gradient, argument in zip(gradients, (X, DECONVOLUTION), strict=True):
    np.testing.assert_allclose(np.sum(gradient * argument), expected, rtol=1e-4)


def resized_by_loop(x, factor):
  """Resizes [B, H, W, C] with half-pixel centres; the border is repeated."""
  for axis in (1, 2):
    length, parts = x.shape[axis], []
    for i in range(factor * length):
      place = (i + 0.5) / factor - 0.5
      low = int(np.floor(place))
      near = [x.take(min(max(k, 0), length - 1), axis=axis) for k in (low, low + 1)]
      parts.append(near[0] * (low + 1 - place) + near[1] * (place - low))
    x = np.stack(parts, axis=axis)
  return x


def convolved_by_loop(x, kernel):
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  rows, columns = x.shape[1:3]
  return sum(padded[:, i : i + rows, j : j + columns] @ kernel[i, j] for i in range(3) for j in range(3))


def test_convolution_of_a_resized_map_equals_a_loop():
  found = jax.jit(pose_estimator.resized_convolution, static_argnums=2)(X, KERNEL, 4)
  expected = convolved_by_loop(resized_by_loop(X.astype(np.float64), 4), KERNEL)
  np.testing.assert_allclose(found, expected, atol=2e-6, rtol=0)


def test_convolution_of_a_resized_map_equals_pytorch():
  torch = pytest.importorskip("torch")
  resized = torch.nn.functional.interpolate(
    channels_first(X), scale_factor=4, mode="bilinear", align_corners=False
  )
  weight = torch.from_numpy(np.ascontiguousarray(KERNEL.transpose(3, 2, 0, 1)))
  expected = torch.nn.functional.conv2d(resized, weight, padding=1).numpy().transpose(0, 2, 3, 1)
  found = jax.jit(pose_estimator.resized_convolution, static_argnums=2)(X, KERNEL, 4)
  np.testing.assert_allclose(found, expected, atol=2e-6, rtol=0)


FEATURES = RNG.normal(size=(2, 3, 2, 16)).astype(np.float32)
MAKE = {
  "classic": lambda dtype=jnp.float32: pose_estimator.ClassicHead(5, (12, 8), dtype),
  "simple": lambda dtype=jnp.float32: pose_estimator.SimpleHead(5, dtype),
}
HEADS = pytest.mark.parametrize("head", pose_estimator.HEADS)


@HEADS
def test_the_heads_start_from_small_kernels_and_zero_biases(head):
  init = jax.jit(lambda key: MAKE[head]().init(key, FEATURES, train=False)["params"])
  layers = jax.tree.map(np.asarray, init(jax.random.key(0)))
  expected = {"final_layer": {"kernel", "bias"}}
  if head == "classic":
    expected |= {f"deconv_layers_{i}": {"kernel"} for i in (0, 3)}
    expected |= {f"deconv_layers_{i}": {"scale", "bias"} for i in (1, 4)}
  assert {name: set(layer) for name, layer in layers.items()} == expected
  for name, layer in layers.items():
    assert not np.any(layer.get("bias", 0))
    assert np.all(layer.get("scale", 1) == 1)
    if "kernel" in layer:
      kernel = layer["kernel"]
      assert abs(kernel.std() / 1e-3 - 1) < 4 / np.sqrt(2 * kernel.size), name


@HEADS
def test_heat_maps_of_bfloat16_are_float32_and_close(head):
  shapes = jax.eval_shape(lambda key: MAKE[head]().init(key, FEATURES, train=False), jax.random.key(0))
  rng = np.random.default_rng(1)
  values = jax.tree.map(lambda x: rng.uniform(0.1, 0.3, x.shape).astype(np.float32), shapes)
  compute = lambda values: [  # noqa: E731
    MAKE[head](dtype).apply(values, FEATURES, train=False) for dtype in (jnp.float32, jnp.bfloat16)
  ]
  found = jax.jit(compute)(values)
  assert [(maps.shape, maps.dtype) for maps in found] == [((2, 12, 8, 5), jnp.float32)] * 2
  assert 0 < np.abs(found[0] - found[1]).max() < 0.02 * np.abs(found[0]).max()


def test_an_unknown_head_is_an_error_that_names_the_key():
  encoder = Encoder(16, 2, 2, (3, 2), 8, patch_padding=2, class_token=False)
  model = pose_estimator.PoseEstimator(encoder.build(), (5,), head="deep")
  image = jnp.zeros((1, 24, 16, 3))
  with pytest.raises(ValueError, match=r"config\.model\.head='deep' is not one of classic, simple"):
    jax.eval_shape(lambda key: model.init(key, image, train=False), jax.random.key(0))

"""A work-around for slow matrix products of XLA on CPUs. Other devices compute the plain product.

On a CPU, XLA is slow if a product sums over the first dimension of both matrices. If a new version of XLA is
fast in this case, replace `matmul` by `jnp.tensordot` and remove this file.
"""

import functools
import math

import jax


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(inputs, kernel, axes=1):
  """Returns the product of `jnp.tensordot`. On a CPU, the gradient of the kernel is computed faster.

  Args:
    inputs: [..., *K], such as [B, T, D].
    kernel: [*K, *N], such as [D, heads, D/heads].
    axes: number of axes in K, over which the product sums.
  Returns:
    [..., *N]. No axes are merged, because on a TPU this may copy the array.
  """
  return _matmul_forward(inputs, kernel, axes)[0]


def _contract(left, right, left_axes, right_axes):
  return jax.lax.dot_general(left, right, ((tuple(left_axes), tuple(right_axes)), ((), ())))


def _matmul_forward(inputs, kernel, axes):
  product = _contract(inputs, kernel, range(inputs.ndim - axes, inputs.ndim), range(axes))
  return product, (inputs, kernel)


def _matmul_backward(axes, saved, gradient):
  inputs, kernel = saved
  rows = inputs.ndim - axes  # number of axes that inputs and gradient share
  kernel_gradient = jax.lax.platform_dependent(
    inputs,
    gradient,
    cpu=functools.partial(_transpose_first, rows),
    default=lambda inputs, gradient: _contract(inputs, gradient, range(rows), range(rows)),
  )
  return _contract(gradient, kernel, range(rows, gradient.ndim), range(axes, kernel.ndim)), kernel_gradient


def _transpose_first(num_axes, inputs, gradient):
  """Returns the gradient of the kernel, in half the time of XLA's own product on a CPU.

  XLA would sum over the first dimension of both matrices, which is slow on a CPU. This function transposes
  the narrower matrix first.
  """
  shape = inputs.shape[num_axes:] + gradient.shape[num_axes:]
  rows, gradient = (x.reshape(math.prod(x.shape[:num_axes]), -1) for x in (inputs, gradient))
  # Without the barriers XLA would merge the transpose into the product again.
  barrier = jax.lax.optimization_barrier
  if rows.shape[1] <= gradient.shape[1]:
    return (barrier(rows.T) @ gradient).reshape(shape)
  return barrier(barrier(gradient.T) @ rows).T.reshape(shape)


matmul.defvjp(_matmul_forward, _matmul_backward)


def dot_general(inputs, kernel, dimension_numbers, **_):
  """Computes the matrix product of `nn.Dense` with `matmul` in place of `jax.lax.dot_general`."""
  # `nn.Dense` contracts the last axis of the inputs with the first axis of the kernel and has no batch axes.
  assert dimension_numbers == (((inputs.ndim - 1,), (0,)), ((), ()))
  return matmul(inputs, kernel)

"""A work-around for slow matrix products of XLA on CPUs. Other devices compute the plain product.

On a CPU, XLA is slow if a product sums over the first dimension of both matrices. If a new version of XLA is
fast in this case, remove this file and the argument `dot_general` in `layers.dense`.
"""

import jax


@jax.custom_vjp
def matmul(rows, kernel):
  """Multiplies [R, K] by [K, N], as `@` does. On a CPU, the gradient of the kernel is computed faster."""
  return rows @ kernel


def _matmul_forward(rows, kernel):
  return rows @ kernel, (rows, kernel)


def _matmul_backward(saved, gradient):
  rows, kernel = saved
  kernel_gradient = jax.lax.platform_dependent(
    rows, gradient, cpu=_transpose_first, default=lambda rows, gradient: rows.T @ gradient
  )
  return gradient @ kernel.T, kernel_gradient


def _transpose_first(rows, gradient):
  """Returns rows.T @ gradient, in half the time of XLA's own product on a CPU.

  XLA would sum over the first dimension of both matrices, which is slow on a CPU. This function transposes
  the narrower matrix first.
  """
  # Without the barriers XLA would merge the transpose into the product again.
  barrier = jax.lax.optimization_barrier
  if rows.shape[1] <= gradient.shape[1]:
    return barrier(rows.T) @ gradient
  return barrier(barrier(gradient.T) @ rows).T


matmul.defvjp(_matmul_forward, _matmul_backward)


def dot_general(inputs, kernel, dimension_numbers, **_):
  """Computes the matrix product of `nn.Dense` with `matmul` in place of `jax.lax.dot_general`."""
  # `nn.Dense` contracts the last axis of the inputs with the first axis of the kernel and has no batch axes.
  assert dimension_numbers == (((inputs.ndim - 1,), (0,)), ((), ()))
  return matmul(inputs.reshape(-1, len(kernel)), kernel).reshape(*inputs.shape[:-1], -1)

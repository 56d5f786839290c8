"""Counts the floating-point operations of a traced function.

Only matrix products and convolutions count. One multiplication with one addition counts as 2 operations.
"""

import math

from jax.extend import core


def count(jaxpr):
  """Returns the FLOPs of a jaxpr, on all devices together.

  The body of a scan counts as often as it runs. Of the branches of a condition, the most expensive one
  counts. The body of a loop whose length is not known counts once; such loops of this project have no
  products.

  Args:
    jaxpr: a `jax.core.ClosedJaxpr`, such as the attribute `jaxpr` of a traced jitted function.
  """
  return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation):
  name, params = equation.primitive.name, equation.params
  if name == "dot_general":
    return _count_product(equation)
  if name == "conv_general_dilated":
    return _count_convolution(equation)
  inner = [count(jaxpr) for jaxpr in _inner_jaxprs(params)]
  if not inner:
    return 0
  if name == "cond":
    return max(inner)
  if name == "scan":
    return params["length"] * sum(inner)
  if name == "shard_map":
    # The body is the work of one device.
    return sum(inner) * math.prod(params["mesh"].shape.values())
  return sum(inner)


def _inner_jaxprs(params):
  """Returns the jaxprs among the parameters of an equation."""
  found = []
  for value in params.values():
    for item in value if isinstance(value, tuple | list) else (value,):
      if isinstance(item, core.ClosedJaxpr):
        found.append(item.jaxpr)
      elif isinstance(item, core.Jaxpr):
        found.append(item)
  return found


def _count_product(equation):
  (contracted, _), _ = equation.params["dimension_numbers"]
  left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
  return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _count_convolution(equation):
  """Counts the products of each output value with its window and input channels, zeros included."""
  kernel, out = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
  numbers, params = equation.params["dimension_numbers"], equation.params
  window = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
  # A dilated input has zeros between its values, which no device multiplies.
  return 2 * math.prod(out) * window // math.prod(params["lhs_dilation"]) // params["batch_group_count"]

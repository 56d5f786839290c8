"""The square box of a person in MPII, from the centre and the scale of its annotation."""

import numpy as np

from hap_jax.data.transforms.topdown import PADDING

_PERSON_HEIGHT = 200  # pixels of a person with scale 1
_SHIFT = 15  # pixels; the centre of a person with scale 1 is moved down by this distance
_NO_CENTER = -1


def box_of(center, scale):
  """Returns the square box of a person, with side 200 * scale.

  The region of the person is this box times `PADDING`, without a change of its aspect.

  Args:
    center: (x, y) of the annotation, in pixels. The first pixel has the number 1.
    scale: height of the person divided by 200 pixels.
  Returns:
    [4] float32, (left, top, right, bottom) in pixels. The first pixel has the number 0.
  """
  x, y = map(float, center)
  half = _PERSON_HEIGHT * float(scale) / 2
  if x == _NO_CENTER:
    # Parity: without a centre, the official code neither shifts the box nor pads it. The division makes the
    # padding of the region leave the side as it is.
    half /= PADDING
  else:
    y += _SHIFT * float(scale)
  x, y = x - 1, y - 1
  return np.array([x - half, y - half, x + half, y + half], np.float32)

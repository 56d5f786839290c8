"""The camera of a square crop of one person (3DCrowdNet, arXiv 2104.07300, as in the official HAP code).

The network predicts three numbers (c0, c1, c2) per person. The body stands at

  t = (c0, c1, k sigmoid(c2)),  k = focal * 2.5 m / side

in front of a pinhole camera. The picture of this camera is the crop, and its focal length is `focal`. The
distance to the person is at most k metres. At the distance k, a body of 2.5 m fills the crop. The axes are
x right, y down, z forward.
"""

import jax
import jax.numpy as jnp

FOCAL = 5000.0  # pixels of the crop
SIDE = 256  # side of the crop in pixels
_BODY_SIZE = 2.5  # metres
_MIN_DEPTH = 1e-4  # Parity: the official code adds this to every depth, in metres


def camera_translation(camera, *, focal=FOCAL, side=SIDE):
  """Returns the place of the body in front of the camera of its crop.

  Args:
    camera: [..., 3] float32, the network's prediction.
    focal: focal length in pixels of the crop.
    side: side of the crop in pixels: a number, or an array [...]. To place the body in front of a camera of
      the whole picture, pass the side of the region and the focal length in pixels of the whole picture.
  Returns:
    [..., 3] float32 in metres.
  """
  depth = focal * _BODY_SIZE / side * jax.nn.sigmoid(camera[..., 2])
  return jnp.stack([camera[..., 0], camera[..., 1], depth], axis=-1)


def project(points, focal=FOCAL, center=SIDE / 2):
  """Projects points to pixels with a pinhole camera.

  Args:
    points: [..., 3] float32 in metres, in the camera frame.
    focal: focal length in pixels: a number, or an array that broadcasts to [..., 2] (x, y).
    center: principal point in pixels: a number, or an array that broadcasts to [..., 2].
  Returns:
    [..., 2] float32 (x, y) in pixels.
  """
  return points[..., :2] / (points[..., 2:] + _MIN_DEPTH) * focal + center

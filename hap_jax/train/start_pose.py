"""Computes the start of the network for 3D pose: its output for every picture before the training.

The start is the mean rotations, body shape and camera of some training records.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from hap_jax.data.sources.base import BadRecordError
from hap_jax.data.transforms import square_crop
from hap_jax.models import crop_camera

_SAMPLE = 1024  # training records, evenly spaced
# Upright, and facing the camera. The body has x to its left, y up and z to the front. The camera has x to the
# right, y down and z forward.
_FACES_CAMERA = np.diag((1.0, -1.0, -1.0))


def choose(given, source, bodies, image_size):
  """Returns the start of a run: NUM_VALUES numbers, see `body_regressor.BodyRegressor`.

  Args:
    given: the start of the earlier run, if this run takes over its head. The outputs of the head are offsets
      from this start, so it must stay the same. None: the run has a new head, and the start is computed from
      the training records.
    source: the training records.
    bodies: the `BodySet` of their parameters.
    image_size: (S, S) pixels of the network's input.
  Raises:
    ValueError: if none of the chosen training records can be read and has parameters.
  """
  if given is not None:
    return tuple(given)
  chosen = np.unique(np.linspace(0, len(source) - 1, _SAMPLE).astype(int))
  view = square_crop.make_view(image_size=image_size)
  return of_records(_through(view, source, chosen.tolist()), bodies.of("neutral"), image_size)


def _through(view, source, indices):
  """Yields the records at these indices after the transforms of `view`. Leaves out unreadable records."""
  for index in indices:
    try:
      record = source[index]
      for transform in view:
        record = transform(record, None)
    except BadRecordError:
      continue  # the loader reports and counts bad records
    yield record


def of_records(records, body, image_size):
  """Returns the mean rotations, shape and camera of records as NUM_VALUES numbers.

  The first rotation is upright and faces the camera. Its mean has no meaning: people face all directions, so
  the mean of their matrices is almost zero.

  Args:
    records: records with the fields of the task and the field `crop_matrix`. Records with `has_fit` False
      have no parameters and are ignored.
    body: the `Body` of their parameters.
    image_size: (S, S) pixels of the crop.
  Raises:
    ValueError: if no record has parameters.
  """
  poses, shapes, cameras = [], [], []
  for record in records:
    if not record.get("has_fit", True):
      continue
    poses.append(record["smpl_pose"].reshape(-1, 3))
    shapes.append(record["smpl_betas"])
    pelvis = rest_pelvis(body, record["smpl_betas"]) + record["smpl_translation"]
    cameras.append(camera_of(pelvis, record["intrinsics"], record["crop_matrix"], image_size))
  if not poses:
    raise ValueError("the training records have no picture with parameters that can be read")
  # The mean of SciPy is the rotation nearest to the mean of the matrices.
  joints = np.moveaxis(np.array(poses, np.float64), 1, 0)
  matrices = np.stack([Rotation.from_rotvec(vectors).mean().as_matrix() for vectors in joints])
  matrices[0] = _FACES_CAMERA
  sixd = matrices[:, :, :2].reshape(-1)
  values = np.concatenate([sixd, np.mean(shapes, axis=0), np.mean(cameras, axis=0)])
  # Six digits are enough. The last digits of the sums may differ between CPUs, and the rounding removes them.
  return tuple(float(value) for value in np.round(values, 6))


def rest_pelvis(body, betas):
  """Returns the position of the pelvis for the body shape `betas`, [3] metres. It is equal in all poses."""
  shaped = body.v_template + body.shapedirs @ betas
  return body.J_regressor[0] @ shaped


def camera_of(pelvis, intrinsics, crop, image_size):
  """Returns the camera [3] that shows a pelvis at its place and scale in the crop.

  This function is the inverse of `crop_camera.camera_translation` for one point.

  Args:
    pelvis: [3] metres in the camera frame of the picture.
    intrinsics: [3, 3] pixels of the picture.
    crop: [2, 3], the matrix from pixels of the picture to pixels of the cropped image.
    image_size: (S, S) pixels of the cropped image.
  """
  unit = crop_camera.SIDE / image_size[0]  # pixels of the camera's crop per pixel of the cropped image
  pixel = intrinsics[:2, :2] @ (pelvis[:2] / pelvis[2]) + intrinsics[:2, 2]
  place = unit * (crop[:, :2] @ pixel + crop[:, 2]) - crop_camera.SIDE / 2
  size = unit * np.sqrt(abs(np.linalg.det(crop[:, :2]))) * intrinsics[0, 0] / pelvis[2]  # pixels per metre
  depth = crop_camera.FOCAL / size
  farthest = 2 * float(crop_camera.camera_translation(np.zeros(3, np.float32))[2])  # sigmoid(0) is 1/2
  share = np.clip(depth / farthest, 1e-6, 1 - 1e-6)
  return np.array([*(place / size), np.log(share / (1 - share))])

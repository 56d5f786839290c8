"""Boxes, matrices and warped pictures of 3D pose against the official code.

The tolerances are 3e-3 pixels, 1e-4 relative for matrices, and 2 grey levels.
"""

import cv2
import numpy as np
import pytest

from hap_jax.data.transforms import square_crop, topdown

_CASE_KEYS = {"box_xywh", "scale_rot_flip", "matrix", "inverse_matrix", "patch_every_8_rows"}
_KEYS = {
  *(f"box/{key}" for key in ("image_wh", "in_xywh", "train_valid", "train_out", "test_out")),
  *("joint_box/joints", "joint_box/valid", "joint_box/out", "iou/boxes", "iou/out"),
  *(
    f"affine/{key}" for key in ("center_wh_scale_rotdeg", "matrix", "inverse_matrix", "points", "points_out")
  ),
  "warp/image_u8",
}
SIZE = (256, 256)


@pytest.fixture(scope="module")
def file(golden):
  arrays = golden("pose3d_geometry")
  assert {key for key in arrays if not key.startswith("warp/case")} == _KEYS
  return arrays


def corners(xywh):
  """Returns (left, top, right, bottom)."""
  x, y, w, h = np.asarray(xywh, np.float64)
  return np.array([x, y, x + w, y + h])


def to_xywh(region):
  x, y, w, h = region
  return np.array([x - w / 2, y - h / 2, w, h])


def test_boxes_become_the_official_squares(file):
  W, H = file["box/image_wh"].tolist()
  rows = zip(
    *(file[f"box/{name}"] for name in ("in_xywh", "train_valid", "train_out", "test_out")), strict=True
  )
  num_refused = 0
  for box, is_valid, train, test in rows:
    region = square_crop.square_region(corners(box), (H, W))
    np.testing.assert_allclose(to_xywh(region), test, atol=1e-4, rtol=0)
    if is_valid:
      np.testing.assert_array_equal(train, test)
    else:
      assert not train.any()
    # A square without an area is accepted by the official code, and refused by ours.
    assert square_crop.can_train(corners(box), (H, W)) == (is_valid and test[2] > 0)
    num_refused += not is_valid
  assert 0 < num_refused < len(file["box/in_xywh"])


def test_the_box_around_joints_agrees(file):
  rows = zip(*(file[f"joint_box/{name}"] for name in ("joints", "valid", "out")), strict=True)
  for joints, valid, expected in rows:
    left, top, right, bottom = square_crop.joint_box(joints, valid > 0)
    np.testing.assert_allclose([left, top, right - left, bottom - top], expected, atol=1e-4, rtol=0)


def check_matrix(found, expected):
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=3e-3)


def test_matrices_and_moved_points_agree(file):
  rows = zip(
    *(file[f"affine/{name}"] for name in ("center_wh_scale_rotdeg", "matrix", "inverse_matrix")),
    *(file["affine/points"], file["affine/points_out"]),
    strict=True,
  )
  for (x, y, w, h, scale, rotation), matrix, inverse, points, expected in rows:
    region = np.array([x, y, scale * w, scale * h], np.float32)
    found = square_crop.square_matrix(region, rotation, SIZE)
    check_matrix(found, matrix)
    record = {"image": np.zeros((4, 4, 3), np.uint8), "region": region, "rotation": rotation}
    moved = square_crop.WarpSquare(SIZE)({**record, "keypoints_xy": points}, None)
    np.testing.assert_allclose(moved["keypoints_xy"], expected, atol=3e-3, rtol=0)
    back = cv2.invertAffineTransform(found)
    for found_inverse, points_there in ((back, moved["keypoints_xy"]), (inverse, expected)):
      restored = points_there @ found_inverse[:, :2].T + found_inverse[:, 2]
      np.testing.assert_allclose(restored, points, atol=3e-3, rtol=0)
    if w == h:
      np.testing.assert_allclose(topdown.warp_matrix(region, rotation, SIZE, "msra"), found, atol=1e-9)


def test_warped_pictures_are_within_two_grey_levels(file):
  image = file["warp/image_u8"]
  names = {key.split("/")[1] for key in file if key.startswith("warp/case")}
  assert names
  for name in sorted(names):
    case = {key: file[f"warp/{name}/{key}"] for key in _CASE_KEYS}
    x, y, w, h = case["box_xywh"].tolist()
    scale, rotation, flip = case["scale_rot_flip"].tolist()
    region = np.array([x + w / 2, y + h / 2, w, h], np.float32)
    record = {
      "image": image,
      "box": corners(case["box_xywh"]).astype(np.float32),
      "region": region * np.array([1, 1, scale, scale], np.float32),
      "rotation": np.float32(rotation),
      "keypoints_xy": np.array([[x, y]], np.float32),
      "keypoints_visible": np.ones(1, bool),
    }
    mirrored = square_crop.MirrorBody((), prob=float(flip))(record, np.random.default_rng(0))
    assert mirrored["is_mirrored"] == bool(flip)
    found = square_crop.WarpSquare(SIZE)(mirrored, None)
    matrix = square_crop.square_matrix(mirrored["region"], rotation, SIZE)
    check_matrix(matrix, case["matrix"])
    check_matrix(cv2.invertAffineTransform(matrix), case["inverse_matrix"])
    patch = found["image"][:: SIZE[0] // len(case["patch_every_8_rows"])].astype(np.float64)
    difference = np.abs(patch - case["patch_every_8_rows"])
    place = np.unravel_index(difference.argmax(), difference.shape)
    assert difference.max() <= 2, f"{name}: {difference.max()} at {place}"
    # `crop_matrix` starts at the picture before the mirror.
    moved = found["crop_matrix"] @ (x, y, 1)
    np.testing.assert_allclose(moved, found["keypoints_xy"][0], atol=1e-3)

"""The camera of a crop: depth, projection, and the camera of the whole picture."""

import numpy as np
import pytest

from hap_jax.models import crop_camera


def test_the_first_prediction_stands_at_half_of_the_largest_depth():
  found = crop_camera.camera_translation(np.zeros((1, 3), np.float32))
  np.testing.assert_allclose(found, [[0, 0, 24.4140625]], rtol=1e-6)
  far = crop_camera.camera_translation(np.array([1, -2, 50], np.float32))
  np.testing.assert_allclose(far, [1, -2, 48.828125], rtol=1e-6)


def test_a_point_on_the_axis_is_the_centre_of_the_crop():
  found = crop_camera.project(np.array([[0, 0, 24.4]], np.float32))
  np.testing.assert_allclose(found * 64 / 256, [[32, 32]], atol=1e-4)


def test_the_farthest_body_of_two_and_a_half_metres_fills_the_crop():
  depth = crop_camera.camera_translation(np.array([0, 0, 50], np.float32))[2]
  ends = np.array([[0, -1.25, 0], [0, 1.25, 0]], np.float32) + np.array([0, 0, depth], np.float32)
  top, bottom = crop_camera.project(ends)[:, 1]
  assert bottom - top == pytest.approx(256, abs=1e-2)


def test_both_cameras_draw_a_body_with_the_same_size():
  camera = np.array([0.1, -0.2, 0.3], np.float32)
  side = 400.0  # of the region, in pixels of the whole picture
  depth_in_crop = float(crop_camera.camera_translation(camera)[2])
  depth_in_picture = float(crop_camera.camera_translation(camera, side=side)[2])
  pixels_of_crop = crop_camera.FOCAL / depth_in_crop  # per metre
  pixels_of_picture = crop_camera.FOCAL / depth_in_picture
  assert pixels_of_picture == pytest.approx(pixels_of_crop * side / 256, rel=1e-6)


def test_focal_length_and_centre_may_differ_per_record():
  points = np.random.default_rng(0).normal((0, 0, 5), 1, (2, 4, 3)).astype(np.float32)
  focal = np.array([[[1000, 1100]], [[2000, 2100]]], np.float32)
  center = np.array([[[10, 20]], [[30, 40]]], np.float32)
  found = crop_camera.project(points, focal, center)
  assert found.shape == (2, 4, 2)
  x, y, z = points[1, 2].tolist()
  np.testing.assert_allclose(found[1, 2], [2000 * x / (z + 1e-4) + 30, 2100 * y / (z + 1e-4) + 40], rtol=1e-5)

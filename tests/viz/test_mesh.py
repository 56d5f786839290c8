"""Meshes are drawn from far to near, and faces that are turned away are not drawn."""

import numpy as np
import pytest

from hap_jax.data.sources import synthetic
from hap_jax.viz import bodies, mesh

SIDE = 64
INTRINSICS = np.array(((64.0, 0, 31.5), (0, 64, 31.5), (0, 0, 1)))
# The corners run counter-clockwise in the picture, so the face is turned to the camera.
FACE = np.array(((0, 2, 1),))


def triangle(depth, half=0.3):
  return depth * np.array(((-half, half, 1), (-half, -half, 1), (half, half, 1)))


def draw(vertices, faces, **options):
  return mesh.draw_mesh(np.full((SIDE, SIDE, 3), 9, np.uint8), vertices, faces, INTRINSICS, **options)


def is_drawn(picture):
  return (picture != 9).any(axis=2)


def test_a_face_that_is_turned_away_is_not_drawn():
  assert is_drawn(draw(triangle(2), FACE)).sum() > 500
  assert not is_drawn(draw(triangle(2), FACE[:, ::-1])).any()


def test_the_near_face_covers_the_far_face_in_any_order():
  # The far face is tilted, so it is darker than the near face.
  far = np.add(triangle(4), ((0, 0, 0), (0, 0, 1.5), (0, 0, 0)))
  near = draw(triangle(2, half=0.15), FACE)
  vertices = np.concatenate([far, triangle(2, half=0.15)])
  for faces in (((0, 2, 1), (3, 5, 4)), ((3, 5, 4), (0, 2, 1))):
    picture = draw(vertices, np.array(faces))
    inside = is_drawn(near)
    np.testing.assert_array_equal(picture[inside], near[inside])
    assert is_drawn(picture).sum() > inside.sum()


def test_faces_behind_the_camera_are_not_drawn():
  assert not is_drawn(draw(triangle(-2), FACE)).any()
  assert not is_drawn(draw(triangle(-2), FACE[:, ::-1])).any()


def test_opacity_mixes_surface_and_picture():
  full, half = draw(triangle(2), FACE), draw(triangle(2), FACE, opacity=0.5)
  inside = is_drawn(full)
  np.testing.assert_allclose(half[inside], (full[inside].astype(float) + 9) / 2, atol=1)
  assert not is_drawn(draw(triangle(2), FACE, opacity=0)).any()


def test_the_four_views_show_the_whole_body_from_different_sides():
  body = synthetic.own_body().of("neutral")
  vertices = body.v_template * (1, -1, -1)  # upright in the camera frame, facing the camera
  views = mesh.four_views(vertices, body.faces, (96, 96))
  assert list(views) == ["front", "left", "back", "right"]
  shown = {name: (view != 255).any(axis=2) for name, view in views.items()}
  for name, pixels in shown.items():
    rows, columns = np.nonzero(pixels)
    assert min(rows.min(), columns.min()) > 0, name  # nothing is cut off
    assert max(rows.max(), columns.max()) < 95, name
  # The arms are stretched out to the sides. So the front is much wider than the side.
  assert shown["front"].any(axis=0).sum() > 2 * shown["left"].any(axis=0).sum()
  # The outline from behind is the mirrored outline from the front.
  assert (shown["back"][:, ::-1] == shown["front"]).mean() > 0.97
  assert (views["back"][:, ::-1] != views["front"]).any()


@pytest.mark.parametrize("size", [(40, 30), (300, 500)])
def test_a_sheet_shows_the_person_in_seven_tiles(size):
  body = synthetic.own_body().of("neutral")
  vertices = body.v_template * (1, -1, -1) + (0, 0, 4)
  image = np.full((*size, 3), 120, np.uint8)
  intrinsics = np.array(((size[0], 0, size[1] / 2), (0, size[0], size[0] / 2), (0, 0, 1)), float)
  joints = synthetic.own_body().joint_regressor @ vertices
  pixels = joints[:, :2] / joints[:, 2:] * size[0] + (size[1] / 2, size[0] / 2)
  region = (size[1] / 2, size[0] / 2, size[0], size[0])
  sheet = bodies.person_sheet(image, region, vertices, body.faces, intrinsics, pixels)
  assert sheet.dtype == np.uint8
  assert sheet.shape[1] > 3 * 288 + 4 * 192
  # The mesh covers the joints. So both tiles differ from the picture at the same places.
  picture, drawn, dots = (sheet[-288:, k * 296 : k * 296 + 288].astype(int) for k in range(3))
  on_mesh, on_dots = (np.abs(tile - picture).max(axis=2) > 20 for tile in (drawn, dots))
  assert on_dots.any()
  assert on_mesh[on_dots].mean() > 0.5

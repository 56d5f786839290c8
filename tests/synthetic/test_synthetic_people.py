"""Pictures of synthetic people are reproducible, and the ground truth agrees with the pictures."""

import functools
import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from hap_jax.data.transforms import image as image_transforms
from hap_jax.synthetic import anatomy, body, camera, captions, draw, mesh, pose, raster, scene, skin

SIZE = (256, 128)
SEED = 5
INDICES = tuple(range(3, 1203, 12))  # 100 people; the step of 12 varies the camera too


@functools.cache
def records():
  return [draw.draw_person(SEED, index, SIZE) for index in INDICES]


def digest(record):
  parts = [
    record[name].tobytes() for name in ("image", "keypoints_xy", "parts", "rotations", "keypoints_occluded")
  ]
  return hashlib.sha256(b"".join(parts)).hexdigest()


def test_bytes_do_not_depend_on_the_pictures_drawn_before():
  wanted = [digest(record) for record in records()[:6]]
  # Another size and another order fill the caches differently.
  draw.draw_person(SEED, 77, (80, 40))
  for k in (4, 0, 5, 2):
    assert digest(draw.draw_person(SEED, INDICES[k], SIZE)) == wanted[k]


def test_bytes_are_the_same_in_another_process():
  script = (
    "import hashlib; from hap_jax.synthetic import draw\n"
    f"r = draw.draw_person({SEED}, {INDICES[2]}, {SIZE})\n"
    "names = ('image', 'keypoints_xy', 'parts', 'rotations', 'keypoints_occluded')\n"
    "print(hashlib.sha256(b''.join(r[n].tobytes() for n in names)).hexdigest())"
  )
  out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
  assert out.stdout.strip() == digest(records()[2])


def test_another_seed_draws_another_picture():
  assert not np.array_equal(draw.draw_person(SEED + 1, INDICES[0], SIZE)["image"], records()[0]["image"])


def ball(center, radius):
  """Returns the Mesh of a ball in the camera frame."""
  angle = np.linspace(-0.499 * np.pi, 0.499 * np.pi, 9)[:, None]
  axes = np.eye(3)
  rings = center + radius * np.sin(angle) * axes[1], *(radius * np.cos(angle) * axes[k] for k in (0, 2))
  return mesh.build_mesh(mesh.one_tube(*rings, v=0.0, part=1, tile=0), sides=16)


def draw_ball(center, radius, intrinsics, size):
  """Draws only a white ball with the camera and the rasteriser, [H, W, 3] uint8."""
  surface = ball(center, radius)
  points = camera.project(surface.vertices, intrinsics)
  # Twice the resolution, then a mean over 2 x 2 pixels, for a centroid with subpixel accuracy.
  view = raster.rasterize(
    surface, (points + 0.5) * 2 - 0.5, surface.vertices[:, 2], (size[0] * 2, size[1] * 2), align=2
  )
  flat = np.zeros((size[0] * 2, size[1] * 2), np.float32)
  height, width = view.index_map.shape
  flat[view.top : view.top + height, view.left : view.left + width] = view.index_map > 0
  flat = cv2.resize(flat, size[::-1], interpolation=cv2.INTER_AREA)
  return np.repeat(np.rint(flat * 255).astype(np.uint8)[..., None], 3, axis=2)


def centroid(picture):
  """Returns the mean position (x, y) of the light in a picture."""
  weight = picture[..., 0].astype(float)
  rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
  return np.array(((columns * weight).sum(), (rows * weight).sum())) / weight.sum()


def whole_balls(record, radius):
  """Returns the joints whose ball is completely inside the picture."""
  reach = radius / record["keypoints_3d"][:, 2] * record["intrinsics"][0, 0] + 2
  xy = record["keypoints_xy"]
  return np.flatnonzero(
    (xy > reach[:, None]).all(axis=1) & (xy < np.array(SIZE[::-1]) - reach[:, None] - 1).all(axis=1)
  )


def test_ball_at_each_joint_is_drawn_where_the_joint_is_recorded():
  errors = []
  for record in records()[:25]:
    for joint in whole_balls(record, 0.05):
      picture = draw_ball(record["keypoints_3d"][joint], 0.05, record["intrinsics"], SIZE)
      errors.append(np.abs(centroid(picture) - record["keypoints_xy"][joint]).max())
  assert len(errors) > 300  # enough joints for a meaningful maximum
  assert max(errors) < 1.0


@pytest.mark.parametrize("flip", [False, True])
def test_ball_and_joint_stay_together_through_crop_resize_and_flip(flip):
  errors = []
  for record in records()[:8]:
    for joint in whole_balls(record, 0.04)[::3]:
      picture = draw_ball(record["keypoints_3d"][joint], 0.04, record["intrinsics"], SIZE)
      moved = image_transforms.crop_resize({**record, "image": picture}, (0, 0, *SIZE), (192, 96), flip)
      errors.append(np.abs(centroid(moved["image"]) - moved["keypoints_xy"][joint]).max())
  assert len(errors) > 30
  assert max(errors) < 1.0


def person_parts(record):
  return (record["parts"] > 0) & (record["parts"] < anatomy.PART_INDEX["carried"])


def test_visible_joints_are_inside_the_drawn_body():
  hits = []
  for record in records():
    body_mask = person_parts(record)
    shown = record["keypoints_visible"] & ~record["keypoints_occluded"]
    column, row = np.rint(record["keypoints_xy"][shown]).astype(int).T
    hits += body_mask[row.clip(0, SIZE[0] - 1), column.clip(0, SIZE[1] - 1)].tolist()
  assert len(hits) > 900
  assert np.mean(hits) >= 0.95


def first_hits(origin_rays, corners):
  """Finds the exact nearest intersection of rays from the camera with quadrilaterals.

  Args:
    origin_rays: [K, 3] directions with z = 1.
    corners: [4, Q, 3] in the camera frame.
  Returns:
    (depth [K], quadrilateral [K]); without an intersection the depth is infinite and the quadrilateral is -1.
  """
  # Each quadrilateral is two triangles; the method is that of Moeller and Trumbore.
  nearest, which = np.full(len(origin_rays), np.inf), np.full(len(origin_rays), -1)
  for a, b, c in ((0, 1, 2), (0, 2, 3)):
    edge1, edge2, origin = corners[b] - corners[a], corners[c] - corners[a], -corners[a]
    for k, ray in enumerate(origin_rays):
      p = np.cross(ray, edge2)
      det = (edge1 * p).sum(axis=1)
      # A ray parallel to the triangle hits nothing: comparisons with NaN are false.
      det = np.where(np.abs(det) < 1e-12, np.nan, det)
      u = (origin * p).sum(axis=1) / det
      q = np.cross(origin, edge1)
      v = (q @ ray) / det
      t = (edge2 * q).sum(axis=1) / det
      hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
      if hit.any() and t[hit].min() < nearest[k]:
        nearest[k] = t[hit].min()
        which[k] = np.flatnonzero(hit)[t[hit].argmin()]
  return nearest, which


def test_occlusion_flags_agree_with_the_depth_order_of_exact_rays(monkeypatch):
  """A joint is hidden behind another object, or behind more of the body than the flesh around the joint."""
  # The scene is not part of a record, so a wrapper keeps each one that is drawn.
  scenes = []
  compose = scene.compose
  monkeypatch.setattr(scene, "compose", lambda *args: scenes.append(compose(*args)) or scenes[-1])
  agree = []
  for index in INDICES[:30]:
    record = draw.draw_person(SEED, index, SIZE)
    shot = scenes[-1]
    joints = record["keypoints_3d"].astype(float)
    depth, quad = first_hits(joints / joints[:, 2:], shot.vertices[shot.surface.corners])
    figure = shot.actors[0].figure
    flesh = FLESH * figure.body.scale * figure.body.girth
    # Body parts come before "carried" in PARTS.
    is_own = np.isin(shot.surface.part[quad], np.arange(1, anatomy.PART_INDEX["carried"]))
    hidden = np.where(is_own, joints[:, 2] - depth > flesh, depth < joints[:, 2]) & (quad >= 0)
    inside = record["keypoints_visible"]
    agree += (hidden == record["keypoints_occluded"])[inside].tolist()
  assert len(agree) > 400
  assert np.mean(agree) >= 0.95


# Flesh and cloth in front of each COCO joint (metres): face, shoulders, elbows, wrists, hips, knees, ankles.
FLESH = np.repeat((0.05, 0.13, 0.085, 0.075, 0.18, 0.11, 0.10), (5, 2, 2, 2, 2, 2, 2))


def test_joints_follow_from_rotations_and_bones():
  for index in INDICES[:5]:
    record = draw.draw_person(SEED, index, SIZE)
    bones = draw.sample_person(SEED, index // draw.PICTURES_PER_PERSON).body
    joints, _ = body.place_joints(bones, record["rotations"].astype(float))
    np.testing.assert_allclose(joints - joints[0], record["joints_3d"] - record["joints_3d"][0], atol=1e-5)
    identity = record["rotations"] @ record["rotations"].transpose(0, 2, 1)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(3), (24, 3, 3)), atol=1e-5)


def test_joints_project_to_keypoints():
  for record in records()[:20]:
    again = camera.project(record["keypoints_3d"].astype(float), record["intrinsics"].astype(float))
    np.testing.assert_allclose(again, record["keypoints_xy"], atol=0.01)


def test_pose_angles_stay_within_the_limits(monkeypatch):
  # The wrapper records the angles and returns rotations that are not used.
  seen = []
  monkeypatch.setattr(
    pose, "rotations_from_angles", lambda angles: seen.append(angles) or np.tile(np.eye(3), (24, 1, 1))
  )
  for k in range(300):
    pose.sample_pose(np.random.default_rng(k))
  low, high = np.array(list(pose.LIMITS.values())).T[..., None]
  assert (np.array(seen) >= low).all()
  assert (np.array(seen) <= high).all()


def test_every_pose_family_is_drawn():
  families = {pose.sample_pose(np.random.default_rng(k)).family for k in range(400)}
  assert families == set(pose.FAMILY_RATES)


def test_left_arm_hangs_on_the_left_side_and_knees_bend_backwards():
  angles = np.zeros((len(pose.LIMITS), 2))
  angles[list(pose.LIMITS).index("knee_flexion")] = 90
  bones = body.sample_body(np.random.default_rng(0), False, "adult")
  joints, _ = body.place_joints(bones, pose.rotations_from_angles(angles))
  at = {name: joints[k] for name, k in body.JOINT_INDEX.items()}
  assert at["left_wrist"][0] > 0 > at["right_wrist"][0]
  assert at["left_wrist"][1] < at["left_elbow"][1] < at["left_shoulder"][1]
  assert at["left_ankle"][2] < at["left_knee"][2] - 0.3


def test_identity_keeps_bones_and_clothes_and_changes_camera_and_pose():
  first = draw.draw_person(SEED, 16, (80, 40))
  second = draw.draw_person(SEED, 17, (80, 40))
  assert first["pid"] == second["pid"] == 2
  assert first["captions"] == second["captions"]
  assert first["camid"] != second["camid"]
  assert first["camid"] // camera.CAMERAS_PER_SITE == second["camid"] // camera.CAMERAS_PER_SITE
  assert np.abs(first["rotations"] - second["rotations"]).max() > 0.1


def test_there_are_at_least_sixteen_attributes_and_their_rates_differ():
  looks = [draw.sample_person(SEED, pid).look for pid in range(400)]
  rate = np.mean([captions.attributes_of(look) for look in looks], axis=0)
  assert len(captions.ATTRIBUTES) == len(rate) >= 16
  assert rate.min() > 0.005
  assert rate.max() < 0.7
  assert rate.max() > 5 * np.median(rate) / 2


def test_the_two_captions_differ_and_almost_all_people_have_their_own_captions():
  texts = [captions.captions_of(draw.sample_person(SEED, pid).look) for pid in range(400)]
  assert all(first != second for first, second in texts)
  assert len({first for first, _ in texts}) >= 390
  assert len({second for _, second in texts}) >= 380


def test_picture_without_its_person_shows_none_of_their_parts():
  for index in INDICES[:10]:
    empty = draw.draw_person(SEED, index, (80, 40), is_empty=True)
    assert not person_parts(empty).any()
    assert np.isin(
      empty["parts"], [anatomy.PART_INDEX[name] for name in ("background", "other_person", "object")]
    ).all()


def test_box_encloses_the_drawn_body():
  for record in records()[:30]:
    rows, columns = np.nonzero(person_parts(record))
    left, top, right, bottom = record["box"]
    assert left - 1.5 <= columns.min()
    assert columns.max() <= right + 1.5
    assert top - 1.5 <= rows.min()
    assert rows.max() <= bottom + 1.5


def test_some_joints_are_outside_the_picture_and_some_are_hidden():
  inside = np.array([record["keypoints_visible"] for record in records()])
  hidden = np.array([record["keypoints_occluded"] for record in records()])
  assert 0.8 < inside.mean() < 0.99
  assert 0.1 < hidden.mean() < 0.4


def test_drawing_does_not_change_cached_tables_of_rings():
  before = skin.limb_rings("left", "arm", 0.3, 2.0).copy()
  draw.draw_person(SEED, 40, (80, 40))
  np.testing.assert_array_equal(before, skin.limb_rings("left", "arm", 0.3, 2.0))

"""Draws one picture of one synthetic person, a pure function of (seed, index, size), with its ground truth."""

import dataclasses
import math

import cv2
import numpy as np

from hap_jax.data.synthetic import appearance, background, body, camera, figure, mesh, pose, raster, texture

PICTURES_PER_PERSON = 8
NUM_SITES = 4
# Indices of the splits never meet, and neither do their people.
FIRST_INDEX = {"train": 0, "val": 1 << 24, "test": 2 << 24}


@dataclasses.dataclass(frozen=True)
class Person:
  """An identity: who it is (`pid`), where it is seen (`site`), its bones and its looks."""

  pid: int
  site: int
  body: body.Body
  look: appearance.Appearance
  camera_order: np.ndarray


def sample_person(seed, pid):
  """Draws identity number `pid`: the same over all its pictures."""
  rng = np.random.default_rng((seed, pid, 11))
  look = appearance.sample_appearance(rng)
  return Person(
    pid=pid,
    site=int(rng.integers(NUM_SITES)),
    body=body.sample_body(rng, look.is_female, look.age),
    look=look,
    camera_order=rng.permutation(camera.CAMERAS_PER_SITE),
  )


def draw_person(seed, index, size):
  """Draws picture number `index`.

  Args:
    seed: whole number >= 0. index: whole number >= 0; FIRST_INDEX tells the splits apart. size: (H, W) pixels.
  Returns:
    dict with
      image [H, W, 3] uint8 RGB, keypoints_xy [17, 2] float32 pixels, keypoints_visible [17] bool (inside the
      picture), pid and camid (int).
  """
  person = sample_person(seed, index // PICTURES_PER_PERSON)
  shot = index % PICTURES_PER_PERSON
  cam = int(person.camera_order[shot % camera.CAMERAS_PER_SITE])
  rng = np.random.default_rng((seed, index, 12))
  station = camera.sample_station(np.random.default_rng((seed, person.site, cam, 13)))

  posture = pose.sample_pose(rng, stoop=14.0 if person.look.age == "senior" else 0.0)
  turns = posture.rotations.copy()
  turns[0] = pose.rotation(1, rng.uniform(0, 360))
  joints, frames = body.place_joints(person.body, turns)
  surface = mesh.build_mesh(figure.build_figure(person.body, joints, frames, person.look))
  lift = np.array((0.0, -surface.vertices[:, 1].min(), 0.0))

  rotation, translation = camera.aim(station, rng)
  to_camera = camera.Camera(rotation, translation, np.eye(3)).to_camera
  vertices = to_camera(surface.vertices + lift)
  coco = to_camera(body.coco_joints(person.body, joints, frames) + lift)
  intrinsics = _frame_person(vertices, size, rng)

  light = _sample_light(rng)
  picture = _surroundings(seed, person.site, cam, station, translation, size, rng)
  feet = camera.project(to_camera(joints[[7, 8]] * (1, 0, 1)), intrinsics)
  _ground_shadow(picture, feet, intrinsics[0, 0] / vertices[:, 2].mean(), light)
  _paint_person(picture, surface, vertices, intrinsics, rotation, texture.paint_atlas(person.look, rng), light)
  image = camera.expose(picture, station.sensor, rng)
  keypoints = camera.project(coco, intrinsics)
  inside = ((keypoints >= -0.5) & (keypoints < np.array(size[::-1]) - 0.5)).all(axis=1)
  return {
    "image": image,
    "keypoints_xy": keypoints.astype(np.float32),
    "keypoints_visible": inside,
    "keypoints_occluded": np.zeros(17, bool),
    "pid": person.pid,
    "camid": person.site * camera.CAMERAS_PER_SITE + cam,
  }


def _frame_person(vertices, size, rng):
  """Chooses the crop: the body's box fills most of the picture, a little off centre, as a detector's boxes do."""
  H, W = size
  flat = vertices[:, :2] / vertices[:, 2:]
  low, high = flat.min(axis=0), flat.max(axis=0)
  extent = high - low
  scale = min(H * rng.uniform(0.86, 0.97) / extent[1], W * 0.97 / extent[0])
  center = (low + high) / 2 + rng.normal(0, (0.03, 0.012)) * extent[1]
  if rng.random() < 0.1:
    scale *= rng.uniform(1.1, 1.6)
    center[1] = low[1] + (0.47 * H) / scale
  return np.array(((scale, 0, (W - 1) / 2 - scale * center[0]), (0, scale, (H - 1) / 2 - scale * center[1]), (0, 0, 1)))


@dataclasses.dataclass(frozen=True)
class Light:
  """A sun (unit direction towards it, in the world) and the sky around it."""

  direction: np.ndarray
  sun: float
  sky: float


def _sample_light(rng):
  azimuth, height = rng.uniform(0, 2 * math.pi), rng.uniform(0.35, 1.2)
  direction = np.array((math.cos(azimuth) * math.cos(height), math.sin(height), math.sin(azimuth) * math.cos(height)))
  sky = rng.uniform(0.45, 0.8)
  return Light(direction, sun=(1.12 - sky) * rng.uniform(0.9, 1.3), sky=sky)


def _surroundings(seed, site, cam, station, translation, size, rng):
  """The stretch of the camera's surroundings behind the person; independent of who stands there."""
  distance = float(np.linalg.norm(translation))
  behind = background.wall_distance(seed, site, cam)
  metres = 1.87 * (distance + behind) / distance
  base = 0.95 - (station.height / 1.87) * behind / (distance + behind) + rng.normal(0, 0.03)
  wide = background.wide_picture(seed, site, cam)
  picture = background.view(wide, size, min(metres, 4.5), max(base, 0.05), rng)
  sigma = size[1] * 0.004 * (1 + behind / 6)
  return cv2.GaussianBlur(picture, (0, 0), sigma)


def _ground_shadow(picture, feet, scale, light):
  """Darkens the ground under and beside the feet."""
  H, W = picture.shape[:2]
  cover = np.zeros((H, W), np.float32)
  slope = light.direction[[0, 2]] / max(light.direction[1], 0.3)
  end = feet.mean(axis=0) + np.array((-slope[0], slope[1] * -0.35)) * 0.9 * scale
  limit = 8 * max(H, W)
  start = np.clip(feet, -limit, limit)
  for foot in start:
    cv2.line(cover, _fixed(foot), _fixed(np.clip(end, -limit, limit)), 0.35 * light.sun, max(int(0.2 * scale), 1), cv2.LINE_AA, 3)
  for foot in start:
    axes = (max(int(0.15 * scale), 1), max(int(0.05 * scale), 1))
    cv2.ellipse(cover, (int(foot[0]), int(foot[1])), axes, 0, 0, 360, 0.6, -1, cv2.LINE_AA)
  cover = cv2.GaussianBlur(cover, (0, 0), max(0.035 * scale, 0.3))
  picture *= (1 - cover)[..., None]


def _fixed(point):
  return int(round(point[0] * 8)), int(round(point[1] * 8))


def _paint_person(picture, surface, vertices, intrinsics, rotation, atlas, light):
  """Rasterises, textures and lights the surface on a finer grid and lays it over the picture."""
  H, W = picture.shape[:2]
  fine = int(np.clip(round(400 / H), 2, 4))
  points = (camera.project(vertices, intrinsics) + 0.5) * fine - 0.5
  fragments = raster.rasterize(surface, points, vertices[:, 2], (H * fine, W * fine))
  up = surface.normals[:, 1]
  toward = surface.normals @ light.direction
  shade = light.sky * (0.80 + 0.20 * up) + light.sun * np.clip(0.25 + 0.75 * toward, 0, None)
  size = atlas.shape[1]
  u = raster.interpolate(fragments, surface.uv[:, 0] * size).astype(np.int32) % size
  v = np.clip(raster.interpolate(fragments, surface.uv[:, 1] * size).astype(np.int32), 0, size - 1)
  texel = (surface.tile[fragments.quad] * size + v) * size + u
  colour = atlas.reshape(-1, 3).take(texel, axis=0)
  colour *= np.clip(raster.interpolate(fragments, shade), 0.15, 1.6)[:, None]
  canvas = np.zeros((H * fine * W * fine, 4), np.float32)
  canvas[fragments.pixel, :3] = colour
  canvas[fragments.pixel, 3] = 1
  canvas = cv2.resize(canvas.reshape(H * fine, W * fine, 4), (W, H), interpolation=cv2.INTER_AREA)
  picture *= 1 - canvas[..., 3:]
  picture += canvas[..., :3]

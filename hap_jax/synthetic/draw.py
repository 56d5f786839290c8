"""Draws a picture of a synthetic person with its ground truth. Both depend only on seed, index and size."""

import dataclasses
import functools

import cv2
import numpy as np

from hap_jax.synthetic import (
  appearance,
  background,
  body,
  camera,
  captions,
  figure,
  raster,
  scene,
  texture,
  truth,
)
from hap_jax.synthetic.anatomy import PART_INDEX
from hap_jax.synthetic.body import JOINT_INDEX

PICTURES_PER_PERSON = 8
NUM_SITES = 4
# Index of the first picture of each split. A split is always smaller than the distance to the next split, so
# splits share no picture and no person.
FIRST_INDEX = {"train": 0, "val": 1 << 24, "test": 2 << 24}


@dataclasses.dataclass(frozen=True)
class Person:
  """One identity, a drawn person.

  Attributes:
    pid: index of the person.
    site: index of the site. Its cameras take all pictures of the person.
    body: bone lengths and thicknesses.
    look: clothes, hair and bags.
    attributes: [27] bool, in the order of captions.ATTRIBUTES.
    captions: two texts.
    atlas: [3, N] float32, the textures.
    camera_order: [CAMERAS_PER_SITE] int, the cameras of the site in the order of the person's pictures.
  """

  pid: int
  site: int
  body: body.Body
  look: appearance.Appearance
  attributes: np.ndarray
  captions: tuple[str, str]
  atlas: np.ndarray
  camera_order: np.ndarray


@functools.lru_cache(maxsize=64)
def sample_person(seed, pid):
  """Returns the Person with index `pid`. All pictures of this person use it."""
  look, site, own_body, wear, camera_order = _sample_identity(seed, pid)
  return Person(
    pid=pid,
    site=site,
    body=own_body,
    look=look,
    attributes=captions.attributes_of(look),
    captions=captions.captions_of(look),
    atlas=texture.paint_atlas(look, wear),
    camera_order=camera_order,
  )


def camids_of(seed, pid):
  """Returns the camera of each picture of a person, [PICTURES_PER_PERSON] int32. Draws nothing."""
  _, site, _, _, camera_order = _sample_identity(seed, pid)
  cam = camera_order[np.arange(PICTURES_PER_PERSON) % camera.CAMERAS_PER_SITE]
  return (site * camera.CAMERAS_PER_SITE + cam).astype(np.int32)


def look_of(seed, pid):
  """Returns the Appearance of a person. Draws nothing."""
  return _sample_identity(seed, pid)[0]


def _sample_identity(seed, pid):
  """Samples the random properties of a person. Returns (look, site, body, wear, camera_order)."""
  # The last number separates the random streams. For example, identities use 11, pictures 12, backgrounds 14.
  rng = np.random.default_rng((seed, pid, 11))
  look = appearance.sample_appearance(rng)
  site = int(rng.integers(NUM_SITES))
  own_body = body.sample_body(rng, look.is_female, look.age)
  return look, site, own_body, texture.sample_wear(rng), rng.permutation(camera.CAMERAS_PER_SITE)


@functools.lru_cache(maxsize=64)
def _outfit(seed, pid, is_detailed):
  person = sample_person(seed, pid)
  return figure.dress(person.body, person.look, is_detailed)


@functools.lru_cache(maxsize=256)
def _station(seed, site, cam):
  return camera.sample_station(np.random.default_rng((seed, site, cam, 13)))


def draw_person(seed, index, size, is_empty=False):
  """Draws the picture with this index. It shows person `index // PICTURES_PER_PERSON`.

  The six cameras of the person's site take the first six pictures. The first two of these cameras also take
  the last two pictures.

  Args:
    seed: whole number >= 0.
    index: whole number >= 0. `FIRST_INDEX` has the first index of each split.
    size: (H, W) pixels, at most camera.MAX_SIZE.
    is_empty: True: the picture does not show the person, their belongings and their shadow. Only the fields
      `image`, `parts` and `keypoints_occluded` of the result change.
  Returns:
    dict: image [H, W, 3] uint8 RGB, attributes [27] bool in the order of captions.ATTRIBUTES,
      captions (str, str), pid and camid int, parts [H, W] uint8 (index into anatomy.PARTS),
      and the fields of `_ground_truth`.
  """
  cv2.setNumThreads(1)  # pictures are small, so OpenCV's threads would only slow down the worker processes
  person = sample_person(seed, index // PICTURES_PER_PERSON)
  cam = int(person.camera_order[index % PICTURES_PER_PERSON % camera.CAMERAS_PER_SITE])
  station = _station(seed, person.site, cam)
  rng = np.random.default_rng((seed, index, 12))
  is_large = size[0] >= 160  # noses, ears and round limbs are not visible in smaller pictures
  outfit = _outfit(seed, person.pid, is_large)
  shot = scene.compose(person, outfit, station, size, 10 if is_large else 8, rng)
  seen = scene.without_person(shot) if is_empty else shot

  # The background has its own random numbers, because it must not depend on the person.
  place = np.random.default_rng((seed, index, 14))
  picture = _surroundings(seed, person.site, cam, station, shot.camera, size, place)
  _cast_shadows(picture, seen)
  points = camera.project(shot.vertices, shot.camera.intrinsics)
  # A small picture needs more samples per pixel for smooth edges.
  fine = min(max(round(400 / size[0]), 2), 4)
  grid = (size[0] * fine, size[1] * fine)
  view = raster.rasterize(shot.surface, _to_fine(points, fine), shot.vertices[:, 2], grid, fine, seen.shown)
  parts = _paint(picture, seen, view, fine)
  record = _ground_truth(shot, points, view, fine, size)
  return {
    "image": camera.expose(picture, station.sensor, place),
    **record,
    "parts": parts,
    "attributes": person.attributes.copy(),
    "captions": person.captions,
    "pid": person.pid,
    "camid": person.site * camera.CAMERAS_PER_SITE + cam,
  }


def _to_fine(points, fine):
  """Converts pixel positions in the picture to positions in a grid that is `fine` times finer."""
  # Distances are measured from the outer edge of pixel 0, which is at -0.5 in both grids.
  return (points + 0.5) * fine - 0.5


def _ground_truth(shot, points, view, fine, size):
  """Returns the ground truth of the person in a scene.

  Returns:
    dict: keypoints_xy [17, 2] float32 pixels,
      keypoints_visible [17] bool (inside the picture; the joint may be hidden),
      keypoints_occluded [17] bool (hidden by the body itself or by another object),
      keypoints_3d [17, 3] and joints_3d [24, 3] float32 metres in the camera frame,
      rotations [24, 3, 3] float32 in SMPL's order (rotations[0] from the body frame to the camera frame, all
      other rotations relative to the parent joint), intrinsics [3, 3] float32 pixels,
      box [4] float32 pixels (left, top, right, bottom) of body and clothes; it may reach outside the picture.
  """
  person, lens = shot.actors[0], shot.camera
  figure = person.figure
  joints = lens.to_camera(figure.joints)
  coco = lens.to_camera(body.coco_joints(figure.body, figure.joints, figure.frames))
  keypoints = camera.project(coco, lens.intrinsics)
  # The picture ends half a pixel outside the centres of its border pixels.
  inside = ((keypoints >= -0.5) & (keypoints < np.array(size[::-1]) - 0.5)).all(axis=1)
  thickness = figure.body.scale * figure.body.girth
  hidden = truth.occluded_joints(
    shot.surface, view, shot.vertices[:, 2], _to_fine(keypoints, fine), coco[:, 2], thickness
  )
  rotations = person.rotations.copy()
  rotations[0] = lens.rotation @ rotations[0]
  # The vertices of body and clothes come first. The box does not include bags.
  own = np.ascontiguousarray(points[: shot.num_body].T)
  return {
    "keypoints_xy": keypoints.astype(np.float32),
    "keypoints_visible": inside,
    "keypoints_occluded": hidden,
    "keypoints_3d": coco.astype(np.float32),
    "joints_3d": joints.astype(np.float32),
    "rotations": rotations.astype(np.float32),
    "intrinsics": lens.intrinsics.astype(np.float32),
    "box": np.concatenate([own.min(axis=1), own.max(axis=1)]).astype(np.float32),
  }


def _surroundings(seed, site, cam, station, view, size, rng):
  """Returns the background, [H, W, 3] float32: a random section of the camera's wide picture."""
  distance = float(np.linalg.norm(view.translation))
  behind = background.wall_distance(seed, site, cam)
  # At the distance of the person the picture shows a height of 1.87 m. At the distance of the wall it shows
  # more, because the wall is farther away.
  metres = 1.87 * (distance + behind) / distance
  base = 0.95 - (station.height / 1.87) * behind / (distance + behind) + rng.normal(0, 0.03)
  wide = background.wide_picture(seed, site, cam)
  return background.view(wide, size, min(metres, 4.5), max(base, 0.05), rng)


# The shadow is drawn as thick lines between these joints.
_SHADOW_BONES = (
  *(
    ("left_ankle", "left_knee"),
    ("left_knee", "pelvis"),
    ("right_ankle", "right_knee"),
    ("right_knee", "pelvis"),
  ),
  *(
    ("pelvis", "spine3"),
    ("spine3", "head"),
    ("left_shoulder", "left_wrist"),
    ("right_shoulder", "right_wrist"),
  ),
)


_ON_THE_GROUND = np.array((1, 0, 1))  # factors that move a point straight down to y = 0


def _cast_shadows(picture, shot):
  """Darkens the ground where people block the light of sun and sky. Changes `picture` in place."""
  H, W = picture.shape[:2]
  # Shadows are soft, so half the resolution is enough.
  cover = np.zeros((H // 2, W // 2), np.float32)
  light = shot.light
  intrinsics = shot.camera.intrinsics
  for actor in shot.actors:
    joints = actor.figure.joints
    ground = joints - light.direction * (joints[:, 1:2] / light.direction[1])
    ground = shot.camera.to_camera(np.concatenate([ground, joints * _ON_THE_GROUND]))
    # A shadow may reach behind the camera, where the projection is not defined.
    ground[:, 2] = np.maximum(ground[:, 2], 0.3)
    scale = intrinsics[0, 0] / ground[-len(joints), 2] / 2
    limit = 4.0 * max(H, W)
    pixels = _limit(camera.project(ground, intrinsics) / 2, -limit, limit)
    fixed = [tuple(point) for point in np.rint(pixels * 8).astype(int).tolist()]
    if light.sun > 0.3:
      for start, end in _SHADOW_BONES:
        width = max(int(scale * (0.24 if start in ("pelvis", "spine3") else 0.11)), 1)
        cv2.line(
          cover, fixed[JOINT_INDEX[start]], fixed[JOINT_INDEX[end]], 0.7 * light.sun, width, cv2.LINE_AA, 3
        )
    # The ground below the feet is dark even without sun, because the feet block the light of the sky.
    for foot in ("left_foot", "right_foot"):
      center = fixed[len(joints) + JOINT_INDEX[foot]]
      axes = (max(int(1.4 * scale), 8), max(int(0.5 * scale), 5))
      cv2.ellipse(cover, center, axes, 0, 0, 360, 0.55, -1, cv2.LINE_AA, 3)
  cover = cv2.GaussianBlur(cover, (0, 0), max(0.02 * intrinsics[0, 0] / shot.vertices[0, 2], 0.4))
  picture *= cv2.merge([1 - cv2.resize(cover, (W, H))] * 3)


# Small random differences of brightness between vertices look like folds. All pictures use the same values.
_CLOTH_SHADE = 0.09 * np.random.default_rng(43).standard_normal(1 << 14)


def _paint(picture, shot, view, fine):
  """Paints the visible surfaces of a scene onto the picture, with texture and light.

  Args:
    picture: [H, W, 3] float32, changed in place.
    shot: Scene.
    view: raster.View on a grid `fine` times finer than the picture.
    fine: 2, 3 or 4.
  Returns:
    [H, W] uint8, the part label of each pixel.
  """
  surface, light = shot.surface, shot.light
  shade = light.sky * (0.78 + 0.22 * surface.normals[:, 1])
  shade = shade + light.sun * np.maximum(0.2 + 0.8 * (surface.normals @ light.direction), 0)
  shade *= 1 + _CLOTH_SHADE[: len(shade)]
  samples = raster.sample(view, fine, picture.shape[1])
  first_texel, side = texture.find_tile(surface.tile[view.quad])
  first_texel[0], side[0] = shot.atlas.shape[1] - 1, 0  # row 0 is the background; it gets the black texel
  values = np.stack([surface.u, surface.v, shade, shot.vertices[:, 2]])
  planes = raster.fit_planes(view, values, side)
  texel = raster.interpolate(planes, _V, samples)
  texel = _limit(texel, 0, texture.SIZE - 1).astype(np.int32)
  texel *= texture.SIZE
  # u runs around a tube and may leave [0, 1]. `&` brings it back, because SIZE is a power of 2.
  texel += raster.interpolate(planes, _U, samples).astype(np.int32) & (texture.SIZE - 1)
  texel = first_texel.take(samples.rows) + texel
  shade = _limit(raster.interpolate(planes, _SHADE, samples), 0.12, 1.5)
  # Share of the samples of a pixel that show the background.
  through = 1 - functools.reduce(np.add, (samples.rows > 0).astype(np.float32)) / np.float32(fine)
  crevice = _crevice_shade(planes, samples) / fine
  # One colour channel at a time, because numpy is several times slower on a last axis of length 3.
  pixels, first_place = picture.reshape(-1), 3 * samples.in_picture
  for k, plane in enumerate(shot.atlas):
    place = first_place + k
    colour = functools.reduce(np.add, plane.take(texel) * shade) * crevice
    pixels[place] = pixels.take(place) * through + colour
  parts = np.full(picture.shape[:2], PART_INDEX["background"], np.uint8)
  label = surface.part[view.quad].astype(np.uint8)
  label[0] = PART_INDEX["background"]
  parts.reshape(-1)[samples.in_picture] = label.take(samples.rows[0])
  return parts


_U, _V, _SHADE, _DEPTH = range(4)  # rows of `values` in `_paint`: the quantities that vary over a surface


def _limit(values, low, high):
  """Clips an array in place. For arrays of this size it is faster than np.clip."""
  np.maximum(values, low, out=values)
  return np.minimum(values, high, out=values)


def _crevice_shade(planes, samples):
  """Returns factors [N] that darken a surface behind its neighbours, for example the trunk behind an arm."""
  relief = raster.interpolate(planes, _DEPTH, samples, places=0)
  relief *= samples.rows[0] > 0
  box = np.zeros(samples.size, np.float32)
  box.reshape(-1)[samples.in_box] = relief
  reach = max(int(0.03 * samples.size[0]) | 1, 3)
  around = cv2.blur(box, (reach, reach)).take(samples.in_box)
  # The mean depth of the neighbours must not include the background. So the share of neighbours that are not
  # background is computed too, with integers, because that is faster.
  count = cv2.boxFilter((box > 0).view(np.uint8), cv2.CV_16U, (reach, reach), normalize=False)
  weight = (count.take(samples.in_box) * (1 / reach**2)).astype(np.float32)
  return 1 - _limit((relief - around / (weight + 1e-3)) * 2.0, 0, 0.3)

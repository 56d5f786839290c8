"""Composes one scene: a person in a pose, other people, obstacles, camera and light."""

import dataclasses
import functools
import math

import numpy as np

from hap_jax.synthetic import anatomy, appearance, belongings, body, camera, figure, mesh, pose, texture

# Shares of all pictures that have a property.
_OBSTACLE_RATE = 0.07
_PERSON_IN_FRONT_RATE = 0.05
_PERSON_BEHIND_RATE = 0.12
_CUT_BELOW_RATE = 0.09
_CUT_SIDE_RATE = 0.04


@dataclasses.dataclass(frozen=True)
class Light:
  """The light of a scene.

  Attributes:
    direction: [3] unit vector from the world's origin to the sun.
    sun, sky: brightness of sun and sky, as factors of a colour.
  """

  direction: np.ndarray
  sun: float
  sky: float


@dataclasses.dataclass(frozen=True)
class Actor:
  """A person on the ground, y = 0, in the world.

  Attributes:
    figure: Figure; its joints are in world coordinates.
    rotations: [24, 3, 3]. rotations[0] is relative to the world. All others are relative to the parent joint.
    family: family of the pose.
    clothed: Tubes of body and clothes.
    carried: list of Tubes, the objects that the person carries.
  """

  figure: figure.Figure
  rotations: np.ndarray
  family: str
  clothed: mesh.Tubes
  carried: list[mesh.Tubes]


@dataclasses.dataclass(frozen=True)
class Scene:
  """All people and objects in front of the background.

  Attributes:
    actors: the person first, then the passers-by.
    surface: Mesh of all people and objects, in world coordinates.
    atlas: [3, N] float32, the textures. The last texel is black.
    camera: Camera.
    light: Light.
    vertices: [V, 3], the vertices of the surface in the camera frame.
    num_body: number of vertices of the person's body and clothes, which come first.
    num_own: number of vertices of the person's body, clothes and belongings.
    shown: [Q] bool, quadrilaterals that the picture shows. None: all.
  """

  actors: list[Actor]
  surface: mesh.Mesh
  atlas: np.ndarray
  camera: camera.Camera
  light: Light
  vertices: np.ndarray
  num_body: int
  num_own: int
  shown: np.ndarray | None = None


def compose(person, outfit, station, size, sides, rng):
  """Puts a person in front of a camera.

  Args:
    person: draw.Person. Only its body, look and atlas are used.
    outfit: figure.Outfit of the person.
    station: Station.
    size: (H, W) of the picture.
    sides: number of corners of a ring.
    rng: numpy Generator. It chooses all properties that are not part of the identity, such as pose and light.
  Returns:
    Scene.
  """
  main = _place(person.body, person.look, outfit, np.zeros(3), rng)
  actors, tubes = [main], [main.clothed, *main.carried]
  atlas = [person.atlas]
  if main.family == "sitting":
    tubes.append(belongings.build_seat(main.figure))
  # Passers-by have no identity, so a network cannot recognise the person by them.
  for position in _passer_by_positions(rng):
    passer_by = _passer_by(int(rng.integers(_NUM_PASSERS_BY)))
    other = _place(passer_by.body, passer_by.look, passer_by.outfit, position, rng, _PASSING)
    tubes += [_relabel(part, len(atlas)) for part in (other.clothed, *other.carried)]
    atlas.append(passer_by.atlas)
    actors.append(other)
  if rng.random() < _OBSTACLE_RATE:
    tubes.append(belongings.build_obstacle(rng))
  surface = mesh.build_mesh(mesh.join_tubes(tubes), sides)
  rotation, translation = camera.aim(station, rng)
  vertices = surface.vertices @ rotation.T + translation
  # The vertices of the person come first, because their tubes do.
  num_body = len(main.clothed.v) * (sides + 1)
  num_own = num_body + sum(len(part.v) for part in main.carried) * (sides + 1)
  intrinsics = _frame_person(vertices[:num_body], size, rng)
  # Carried objects and obstacles get a new colour in each picture, because they must not identify the person.
  atlas = np.concatenate([*atlas, np.zeros((3, 1), np.float32)], axis=1)
  atlas[:, texture.THING_TEXEL] = texture.sample_thing_colour(rng)
  return Scene(
    actors=actors,
    surface=surface,
    atlas=atlas,
    camera=camera.Camera(rotation, translation, intrinsics),
    light=_sample_light(rng),
    vertices=vertices,
    num_body=num_body,
    num_own=num_own,
  )


def without_person(scene):
  """Returns a copy of a scene in which the person and their belongings are not shown."""
  return dataclasses.replace(scene, actors=scene.actors[1:], shown=scene.surface.corners[0] >= scene.num_own)


def _place(person_body, look, outfit, position, rng, families=pose.FAMILY_RATES):
  """Draws a random pose and heading, and puts the person on the ground at `position`. Returns an Actor."""
  posture = pose.sample_pose(rng, families, stoop=14.0 if look.age == "senior" else 0.0)
  rotations = posture.rotations
  rotations[0] = pose.heading_rotation(rng.uniform(0, 360))
  joints, frames = body.place_joints(person_body, rotations)
  dressed = figure.Figure(person_body, look, joints, frames)
  # The lower foot touches the ground.
  lowest = dressed.at(_SOLE_JOINTS, _SOLES)[:, 1].min()
  joints += position - (0, lowest, 0)
  clothed = figure.build_figure(dressed, outfit)
  return Actor(dressed, rotations, posture.family, clothed, belongings.build_belongings(dressed, posture))


# The lowest points of the feet, heel and ball: offsets (left, up, front) from the ankle.
_SOLE_JOINTS = [body.JOINT_INDEX[f"{side}_ankle"] for side in ("left", "left", "right", "right")]
_SOLES = np.array(((0.0, -0.072, -0.05), (0.0, -0.073, 0.12)) * 2)


def _relabel(tubes, rank):
  """Returns the tubes of a passer-by, with the atlas of index `rank` and the part label "other_person"."""
  part = np.full(len(tubes.part), anatomy.PART_INDEX["other_person"])
  return dataclasses.replace(tubes, tile=tubes.tile + rank * len(figure.TILES), part=part)


_NUM_PASSERS_BY = 64
_PASSING = {"walking": 0.7, "standing": 0.3}  # passers-by never sit, because only the person gets a seat


@dataclasses.dataclass(frozen=True)
class _PasserBy:
  body: body.Body
  look: appearance.Appearance
  outfit: figure.Outfit
  atlas: np.ndarray


@functools.lru_cache(maxsize=_NUM_PASSERS_BY)
def _passer_by(number):
  """Returns a person from a fixed crowd without identities. Cached, because painting a person is slow."""
  rng = np.random.default_rng((number, 15))
  look = appearance.sample_appearance(rng)
  bones = body.sample_body(rng, look.is_female, look.age)
  return _PasserBy(
    bones, look, figure.dress(bones, look, False), texture.paint_atlas(look, texture.sample_wear(rng))
  )


def _passer_by_positions(rng):
  """Draws random positions of passers-by, in metres from the person. The camera is in the direction +z."""
  positions = []
  if rng.random() < _PERSON_IN_FRONT_RATE:
    positions.append(np.array((_either_side(rng) * rng.uniform(0.25, 0.55), 0.0, rng.uniform(0.5, 1.0))))
  if rng.random() < _PERSON_BEHIND_RATE:
    positions.append(np.array((_either_side(rng) * rng.uniform(0.2, 0.9), 0.0, -rng.uniform(0.7, 4.0))))
  return positions


def _frame_person(vertices, size, rng):
  """Returns intrinsics [3, 3] that show the person as in the box of a detector.

  The body fills most of the picture, a little off centre. Some pictures cut off the legs or a side.
  """
  H, W = size
  flat = [vertices[:, k] / vertices[:, 2] for k in (0, 1)]
  low, high = np.array([side.min() for side in flat]), np.array([side.max() for side in flat])
  extent = high - low
  scale = min(H * rng.uniform(0.87, 0.97) / extent[1], W * 0.97 / extent[0])
  center = (low + high) / 2 + _OFF_CENTER * rng.standard_normal(2) * extent[1]
  # Every case draws four random numbers, so that the later random numbers do not depend on the case.
  cut_below, cut_side, zoom, shift = rng.random(), rng.random(), rng.uniform(1.15, 1.75), _either_side(rng)
  if cut_below < _CUT_BELOW_RATE:
    scale *= zoom
    center[1] = low[1] + 0.48 * H / scale
  if cut_side < _CUT_SIDE_RATE:
    center[0] += shift * 0.3 * min(extent[0], W / scale)
  offset = (np.array((W, H)) - 1) / 2 - scale * center
  return np.array(((scale, 0.0, offset[0]), (0.0, scale, offset[1]), (0.0, 0.0, 1.0)))


_OFF_CENTER = np.array((0.02, 0.012))  # standard deviation (x, y) divided by the person's height


def _either_side(rng):
  return (-1, 1)[rng.integers(2)]


def _sample_light(rng):
  azimuth, height = rng.uniform(0, 2 * math.pi), rng.uniform(0.45, 1.25)
  direction = np.array(
    (math.cos(azimuth) * math.cos(height), math.sin(height), math.sin(azimuth) * math.cos(height))
  )
  # If the sky is bright, the sun is weak, as under clouds.
  sky = rng.uniform(0.45, 0.85)
  return Light(direction, sun=float((1.15 - sky) * rng.uniform(0.9, 1.25)), sky=float(sky))

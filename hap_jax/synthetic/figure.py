"""Builds the surface of one dressed person as tubes around the posed skeleton."""

import dataclasses

import numpy as np

from hap_jax.synthetic import anatomy, skin
from hap_jax.synthetic.anatomy import PART_INDEX
from hap_jax.synthetic.appearance import Appearance
from hap_jax.synthetic.body import JOINT_INDEX, Body
from hap_jax.synthetic.mesh import BOX, OVAL, ROUND, Tubes, join_tubes, one_tube

TILES = (
  "head",
  "skin",
  "hair",
  "hat",
  "top",
  "sleeve",
  "bottom",
  "shoe",
  "bag",
  "scarf",
  "sock",
  "boot",
  "thing",
)
TILE_INDEX = {name: i for i, name in enumerate(TILES)}

# Metres. A layer is drawn nearer to the camera by this length, so that skin is never visible through cloth.
_OVER_LEGS, _OVER_SHIRT, _OVER_COAT = 0.07, 0.08, 0.10

_EASE = {"shirt": 0.006, "jacket": 0.016, "coat": 0.022}  # metres between skin and cloth
_HEM = {"shirt": -0.105, "jacket": -0.085, "coat": -0.06}  # metres above the pelvis
_NECKLINE = 0.467  # metres above the pelvis
_TAIL = 0.35  # share of a long garment's texture that is below the trunk


@dataclasses.dataclass(frozen=True)
class Figure:
  """A body in a pose, with its Appearance. All functions that build surfaces take it as input.

  Attributes:
    joints: [24, 3] metres.
    frames: [24, 3, 3]. The columns are the directions left, up and front of each joint.
  """

  body: Body
  look: Appearance
  joints: np.ndarray
  frames: np.ndarray

  def joint(self, name):
    return self.joints[JOINT_INDEX[name]]

  def frame(self, name):
    return self.frames[JOINT_INDEX[name]]

  def at(self, joints, offsets):
    """Returns points at given offsets from joints.

    Args:
      joints: [N] int.
      offsets: [N, 3], (left, up, front) in each joint's frame, in metres of the reference adult.
    Returns:
      [N, 3] metres.
    """
    turned = self.frames.take(joints, axis=0) @ (offsets * self.body.scale)[..., None]
    return self.joints.take(joints, axis=0) + turned[..., 0]


@dataclasses.dataclass(frozen=True)
class Piece:
  """A tube that is not yet placed on a body.

  Attributes:
    rings: [R] of dtype skin.RING.
    tile: a name in TILES.
    lift, section, is_open: same as in mesh.Tubes.
    ease, minimum: same as in skin.fit.
  """

  rings: np.ndarray
  tile: str
  lift: float = 0.0
  ease: float = 0.0
  minimum: float = 0.0
  section: int = ROUND
  is_open: bool = False


@dataclasses.dataclass(frozen=True)
class Outfit:
  """A dressed body before it is posed. All pictures of a person share it.

  Attributes:
    fitted: skin.Fitted, the rings of all pieces.
    v, part, length, tile, section, is_open, lift: same as in Tubes.
  """

  fitted: skin.Fitted
  v: np.ndarray
  part: np.ndarray
  length: np.ndarray
  tile: np.ndarray
  section: np.ndarray
  is_open: np.ndarray
  lift: np.ndarray


def dress(body, look, is_detailed):
  """Dresses a body.

  Args:
    body: Body.
    look: Appearance.
    is_detailed: True to add nose and ears, which are not visible in small pictures.
  Returns:
    Outfit.
  """
  # The pieces of the trunk come first, because `_tails` finds them by their position in the list.
  pieces = [*_trunk(look), *_head(look, is_detailed)]
  for side in ("left", "right"):
    pieces += [*_leg(look, body.scale, side), *_arm(look, side)]
  length = np.array([len(piece.rings) for piece in pieces])
  rings = skin.join_rings([piece.rings for piece in pieces])
  ease, minimum = (
    np.repeat([getattr(piece, name) for piece in pieces], length) for name in ("ease", "minimum")
  )
  return Outfit(
    fitted=skin.fit(body, rings, ease, minimum),
    v=rings["v"],
    part=rings["part"].astype(int),
    length=length,
    tile=np.array([TILE_INDEX[piece.tile] for piece in pieces]),
    section=np.array([piece.section for piece in pieces]),
    is_open=np.array([piece.is_open for piece in pieces]),
    lift=np.array([piece.lift for piece in pieces]),
  )


def build_figure(figure, outfit):
  """Puts an outfit on a posed body.

  Args:
    figure: Figure.
    outfit: Outfit of the same body and look.
  Returns:
    Tubes in the frame of `figure.joints`.
  """
  tubes = Tubes(
    *skin.hang(outfit.fitted, figure.joints, figure.frames),
    v=outfit.v,
    part=outfit.part,
    length=outfit.length,
    tile=outfit.tile,
    section=outfit.section,
    is_open=outfit.is_open,
    lift=outfit.lift,
  )
  tails = _tails(figure, tubes)
  return join_tubes([tubes, *tails]) if tails else tubes


def _trunk(look):
  ease = _EASE[look.top]
  # A shirt that is tucked in ends inside the waistband.
  hem = 0.045 if look.is_tucked else _HEM[look.top]
  is_long = look.top == "coat" or look.bottom == "dress"
  lift = _OVER_SHIRT if look.top == "coat" else _OVER_LEGS
  # `_tails` builds the lower part of a long garment as a separate piece, which continues the same texture.
  shirt = skin.trunk_rings(hem, _NECKLINE, _TAIL if is_long else 0.0)
  pieces = [Piece(shirt, "top", lift, ease, section=OVAL)]
  if look.is_tucked:
    # The waistband is over the shirt. It must be the second piece, because a skirt hangs on that piece.
    pieces.append(Piece(skin.trunk_rings(-0.06, 0.065, 0.8), "bottom", _OVER_SHIRT, 0.009, section=OVAL))
  pieces.append(Piece(skin.trunk_rings(-0.165, -0.05, 0.5, 0.8), "bottom", 0.0, 0.004, section=OVAL))
  pieces.append(Piece(skin.level_rings("NECK", "neck"), "skin", 0.06))
  if look.top != "shirt":
    collar = skin.level_rings("COLLAR", "neck", "torso")
    pieces.append(Piece(collar, "sleeve", _OVER_COAT, is_open=True))
  if look.has_hood:
    pieces.append(Piece(skin.level_rings("HOOD", "neck", "torso"), "sleeve", _OVER_COAT))
  if look.has_scarf:
    scarf = skin.level_rings("SCARF", "neck", "torso")
    pieces.append(Piece(scarf, "scarf", _OVER_COAT + 0.01, is_open=True))
  return pieces


def _head(look, is_detailed):
  """Lists the pieces of head, hair and hat."""
  pieces = [Piece(skin.level_rings("HEAD"), "head", _OVER_LEGS)]
  if is_detailed:
    pieces.append(Piece(skin.level_rings("NOSE"), "skin", _OVER_SHIRT))
    ears = (skin.level_rings("EAR", left=mirror * anatomy.EAR_SIDE) for mirror in (1, -1))
    pieces += [Piece(ear, "skin", 0.075) for ear in ears]
  if look.hair != "bald":
    pieces.append(
      Piece(skin.level_rings("HAIR_THIN" if look.hair == "short" else "HAIR_FULL"), "hair", 0.075)
    )
  more = {"medium": "HAIR_MEDIUM", "long": "HAIR_LONG", "bun": "HAIR_BUN", "ponytail": "HAIR_TAIL"}.get(
    look.hair
  )
  if more:
    pieces.append(Piece(skin.level_rings(more), "hair", 0.075))
  tables = {
    "none": (),
    "cap": ("HAT_CROWN", "HAT_PEAK"),
    "beanie": ("HAT_BEANIE",),
    "brim": ("HAT_CROWN", "HAT_BRIM"),
  }[look.hat]
  return pieces + [Piece(skin.level_rings(table), "hat", 0.09) for table in tables]


def _arm(look, side):
  ease = _EASE[look.top]
  hand = Piece(skin.hand_rings(side), "skin", _OVER_SHIRT)
  if look.sleeve == "long":
    sleeve = skin.limb_rings(side, "arm", anatomy.ARM[0, 0], 1.97)
    return [Piece(sleeve, "sleeve", _OVER_LEGS, ease), hand]
  # The bare arm starts inside the sleeve, so that there is no gap at the end of the sleeve.
  bare = skin.limb_rings(side, "arm", 0.3, 2.0)
  sleeve = skin.limb_rings(side, "arm", anatomy.ARM[0, 0], look.sleeve_length)
  return [
    Piece(bare, "skin", _OVER_LEGS),
    Piece(sleeve, "sleeve", _OVER_SHIRT, ease + 0.003, is_open=True),
    hand,
  ]


def _leg(look, scale, side):
  pieces = []
  if look.bottom == "trousers":
    narrow, slack = (0.040 + 0.036 * look.fit) * scale, 0.005 + 0.012 * look.fit
    pieces.append(Piece(skin.limb_rings(side, "leg", 0.0, 2.02), "bottom", 0.0, slack, narrow))
  else:
    pieces.append(Piece(skin.limb_rings(side, "leg", 0.2, 2.0), "skin"))
  if look.bottom == "shorts":
    shorts = skin.limb_rings(side, "leg", 0.0, look.bottom_length)
    pieces.append(Piece(shorts, "bottom", 0.02, 0.016, 0.078 * scale, is_open=True))
  # Wide trousers hang over the boots. Narrow trousers are inside the boots.
  if look.shoes == "boots":
    lift = 0.0 if look.bottom == "trousers" and look.fit > 0.35 else 0.03
    pieces.append(Piece(skin.limb_rings(side, "leg", 1.5, 2.05), "boot", lift, 0.012))
  elif look.has_socks and look.bottom != "trousers":
    pieces.append(Piece(skin.limb_rings(side, "leg", 1.72, 2.05), "sock", 0.02, 0.003))
  pieces.append(Piece(skin.foot_rings(side), "shoe", -0.012, section=OVAL))
  return pieces


def _tails(figure, tubes):
  """Builds skirts and the lower parts of dresses and coats. Each continues the two rings above it.

  Returns:
    List of Tubes.
  """
  look = figure.look
  hips = tubes.length[0]  # index of the first ring of the second piece, which is the waistband or the hips
  tails = []
  if look.bottom == "skirt":
    above = hips if look.is_tucked else hips + tubes.length[1] - 2
    tails.append(_tail(figure, tubes, above, "bottom", 0.05, 0.06, look.bottom_length))
  if look.bottom == "dress":
    tails.append(_tail(figure, tubes, 0, "top", 0.06, _OVER_LEGS, look.bottom_length))
  if look.top == "coat":
    tails.append(_tail(figure, tubes, 0, "top", 0.03, _OVER_SHIRT, 0.8))
  return tails


def _tail(figure, tubes, above, tile, flare, lift, length):
  # This cloth hangs around both legs. So its rings depend on the pose and cannot be part of the outfit.
  low = _leg_hull(figure, np.linspace(length, 0.25, 4), _EASE[figure.look.top] + 0.01, flare)
  high = (rings[above : above + 2] for rings in (tubes.centers, tubes.across, tubes.depth))
  placed = [np.concatenate(pair) for pair in zip(low, high, strict=True)]
  kind = PART_INDEX["torso"], TILE_INDEX[tile], OVAL
  return one_tube(*placed, _TAIL_V[tile], *kind, is_open=True, lift=lift)


_TAIL_V = {tile: np.linspace(0, top, 6) for tile, top in (("top", _TAIL), ("bottom", 1.0))}


def _leg_hull(figure, positions, ease, flare):
  """Computes the rings of cloth that hangs around both legs.

  Args:
    figure: Figure.
    positions: [R] position of each ring along the legs. 0 is the hip, 1 the knee, 2 the ankle.
    ease: metres between skin and cloth.
    flare: metres by which the cloth widens from hip to knee.
  Returns:
    (centers, across, depth), each [R, 3].
  """
  along = positions[:, None]
  # Points on both legs: on the thigh for positions up to 1, on the shin for larger positions.
  left, right = (
    np.where(along <= 1, hip + (knee - hip) * along, knee + (ankle - knee) * (along - 1))
    for hip, knee, ankle in ([figure.joint(f"{side}_{name}") for name in _LEG] for side in ("left", "right"))
  )
  # The cloth follows the thighs above the knees and the shins below them.
  upper = figure.frame("left_hip")[:, 2] + figure.frame("right_hip")[:, 2]
  lower = figure.frame("left_knee")[:, 2] + figure.frame("right_knee")[:, 2]
  weight = np.clip(along - 0.6, 0, 1)
  front = upper * (1 - weight) + lower * weight
  front /= np.linalg.norm(front, axis=1, keepdims=True)
  across = figure.frame("pelvis")[:, 0]
  gap = left - right
  radius = np.interp(positions, anatomy.LEG[:, 0], anatomy.LEG[:, 1]) * figure.body.scale * figure.body.girth
  slack = radius + ease + flare * positions
  # If the legs are apart, as in a step, the cloth is wider.
  half_width = np.abs(gap @ across) / 2 + slack
  half_depth = np.abs((gap * front).sum(axis=1)) / 2 + slack * 1.05
  return (left + right) / 2, across * half_width[:, None], front * half_depth[:, None]


_LEG = ("hip", "knee", "ankle")


def upright_box(center, frame, half_size, part, tile, lift=0.0):
  """Builds an upright box with rounded edges.

  Args:
    center: [3] metres.
    frame: [3, 3], columns left, up, front. Only its horizontal direction is used.
    half_size: (left-right, vertical, front-back) metres.
    part: a name in PARTS.
    tile: a name in TILES.
    lift: same as in Tubes.
  Returns:
    Tubes.
  """
  heading = frame[:, 2] * (1, 0, 1)
  heading = heading / max(np.linalg.norm(heading), 1e-6)
  left = np.array((heading[2], 0.0, -heading[0]))
  centers = np.asarray(center) + _BOX_HEIGHTS * np.array((0.0, half_size[1], 0.0))
  rings = centers, _BOX_WIDTHS * half_size[0] * left, _BOX_WIDTHS * half_size[2] * heading
  return one_tube(*rings, _BOX_V, PART_INDEX[part], TILE_INDEX[tile], BOX, lift=lift)


# The first and the last ring are almost points, so the box is closed.
_BOX_HEIGHTS = np.array((-1.0, -0.98, 0.0, 0.98, 1.0))[:, None]
_BOX_WIDTHS = np.array((0.02, 1.0, 1.0, 1.0, 0.02))[:, None]
_BOX_V = np.linspace(0, 1, 5)

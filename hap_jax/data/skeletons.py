"""Joint orders, flip pairs, bones and body parts of the skeletons."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Skeleton:
  """A joint order, and facts about it.

  Attributes:
    name: short name, stored in checkpoints.
    joints: K joint names, in the order of every `keypoints_xy` array of this skeleton.
    flip_pairs: pairs (left, right) of joint indices whose rows are exchanged when a picture is mirrored.
    bones: pairs of joint indices. A drawing connects the two joints of a pair with a line.
    parts: (name of a body part, pairs of joint indices), one entry per body part. The two joints of a pair
      are opposite corners of a rectangle, and the body part is the union of its rectangles (HAP, arXiv
      2310.20695, Sec. 3.2). The pairs come from the official repository.
  """

  name: str
  joints: tuple[str, ...]
  flip_pairs: tuple[tuple[int, int], ...]
  bones: tuple[tuple[int, int], ...]
  parts: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]


COCO17 = Skeleton(
  name="coco17",
  joints=(
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
  ),
  flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
  bones=(
    *((0, 1), (0, 2), (1, 3), (2, 4)),
    *((5, 6), (5, 7), (7, 9), (6, 8), (8, 10)),
    *((5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
  ),
  parts=(
    ("face", ((0, 1), (0, 2), (1, 2), (1, 3), (2, 4))),
    ("left_arm", ((5, 7), (7, 9))),
    ("right_arm", ((6, 8), (8, 10))),
    ("left_leg", ((11, 13), (13, 15))),
    ("right_leg", ((12, 14), (14, 16))),
    ("torso", ((6, 11), (5, 12))),
  ),
)

SKELETONS = {skeleton.name: skeleton for skeleton in (COCO17,)}

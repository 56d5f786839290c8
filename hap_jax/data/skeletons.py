"""Joint orders, flip pairs, bones, body parts and tolerances of the skeletons."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Skeleton:
  """A joint order with flip pairs, bones, body parts and tolerances.

  Attributes:
    name: short name, stored in checkpoints.
    joints: K joint names, in the order of every `keypoints_xy` array of this skeleton.
    flip_pairs: pairs (left, right) of joint indices whose rows are exchanged when a picture is mirrored.
    bones: pairs of joint indices. A drawing connects the two joints of a pair with a line.
    parts: (name of a body part, pairs of joint indices), one entry per body part. The two joints of a pair
      are opposite corners of a rectangle, and the body part is the union of its rectangles (HAP, arXiv
      2310.20695, Sec. 3.2). The pairs come from the official repository. (): masks of body parts are
      not possible with these joints.
    upper_body: indices of the joints above the waist.
    sigmas: tolerance of each joint in the object keypoint similarity (OKS), relative to the size of the
      person. The values come from the configuration files of the official repository. (): these joints have
      no OKS.
    area_per_box: area of a person divided by the area of the box, for data sets without areas. None: the area
      in the annotation is used.
  """

  name: str
  joints: tuple[str, ...]
  flip_pairs: tuple[tuple[int, int], ...]
  bones: tuple[tuple[int, int], ...]
  parts: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]
  upper_body: tuple[int, ...]
  sigmas: tuple[float, ...]
  area_per_box: float | None = None


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
  upper_body=tuple(range(11)),
  sigmas=(
    *(0.026, 0.025, 0.025, 0.035, 0.035),
    *(0.079, 0.079, 0.072, 0.072, 0.062, 0.062),
    *(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
  ),
)

MPII16 = Skeleton(
  name="mpii16",
  joints=(
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("pelvis", "thorax", "upper_neck", "head_top"),
    *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
  ),
  flip_pairs=((5, 0), (4, 1), (3, 2), (15, 10), (14, 11), (13, 12)),
  bones=(
    *((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5)),
    *((6, 7), (7, 8), (8, 9)),
    *((10, 11), (11, 12), (12, 7), (7, 13), (13, 14), (14, 15)),
  ),
  parts=(),
  upper_body=tuple(range(7, 16)),
  # The score of MPII does not use these values, but other programs do.
  sigmas=(
    *(0.089, 0.083, 0.107, 0.107, 0.083, 0.089, 0.026, 0.026),
    *(0.026, 0.026, 0.062, 0.072, 0.179, 0.179, 0.072, 0.062),
  ),
)

AIC14 = Skeleton(
  name="aic14",
  joints=(
    *("right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("head_top", "neck"),
  ),
  flip_pairs=((3, 0), (4, 1), (5, 2), (9, 6), (10, 7), (11, 8)),
  bones=(
    *((12, 13), (13, 0), (0, 1), (1, 2), (13, 3), (3, 4), (4, 5)),
    *((13, 6), (6, 7), (7, 8), (13, 9), (9, 10), (10, 11)),
  ),
  parts=(),
  upper_body=(0, 1, 2, 3, 4, 5, 12, 13),
  sigmas=(
    *(0.01388152, 0.01515228, 0.01057665, 0.01417709, 0.01497891, 0.01402144, 0.03909642),
    *(0.03686941, 0.01981803, 0.03843971, 0.03412318, 0.02415081, 0.01291456, 0.01236173),
  ),
  area_per_box=0.53,
)

# The joints of 3D pose: the 24 joints of SMPL in their order, then six points of the head. HAP's official
# code and 3DCrowdNet (arXiv 2104.07300) call this order the superset.
SMPL30 = Skeleton(
  name="smpl30",
  joints=(
    *("pelvis", "left_hip", "right_hip", "torso", "left_knee", "right_knee", "spine"),
    *("left_ankle", "right_ankle", "chest", "left_toe", "right_toe", "neck", "left_thorax", "right_thorax"),
    *("head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hand", "right_hand", "nose", "left_eye", "right_eye", "left_ear", "right_ear", "head_top"),
  ),
  flip_pairs=(
    *((1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21), (22, 23)),
    *((25, 26), (27, 28)),
  ),
  bones=(
    *((0, 1), (0, 2), (0, 3), (1, 4), (2, 5), (3, 6), (4, 7), (5, 8), (6, 9), (7, 10), (8, 11)),
    *((9, 12), (9, 13), (9, 14), (12, 15), (13, 16), (14, 17), (16, 18), (17, 19), (18, 20), (19, 21)),
    *((20, 22), (21, 23), (15, 24), (24, 25), (24, 26), (25, 27), (26, 28), (15, 29)),
  ),
  parts=(),
  upper_body=(3, 6, 9, *range(12, 30)),
  sigmas=(),
)

# {name of the joint order of a data set or a program: for each of its joints, the name of the joint in
# SMPL30}. None: the joint is dropped. Two orders end with the pelvis. The files do not have this joint: it is
# the mean of both hips.
JOINT_ORDERS = {
  "h36m17": (
    *("pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("torso", "neck", "nose", "head_top", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_shoulder", "right_elbow", "right_wrist"),
  ),
  "muco21": (
    *("head_top", None, "right_shoulder", "right_elbow", "right_wrist"),
    *("left_shoulder", "left_elbow", "left_wrist", "right_hip", "right_knee", "right_ankle"),
    *("left_hip", "left_knee", "left_ankle", "pelvis", "spine", "head"),
    *("right_hand", "left_hand", "right_toe", "left_toe"),
  ),
  "coco17_pelvis": (*COCO17.joints, "pelvis"),
  # MPII's thorax is dropped, because SMPL has no joint there. Its upper neck is used as SMPL's neck.
  "mpii16": tuple({"thorax": None, "upper_neck": "neck"}.get(name, name) for name in MPII16.joints),
  "openpose18_pelvis": (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist"),
    *("left_shoulder", "left_elbow", "left_wrist", "right_hip", "right_knee", "right_ankle"),
    *("left_hip", "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear", "pelvis"),
  ),
  "graph15": (  # the joints that the official network predicts
    *("pelvis", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
    *("neck", "head_top", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow"),
    *("left_wrist", "right_wrist"),
  ),
}

# Rows of "h36m17" for the evaluation on 3DPW: hips, knees, ankles, neck, head top and arms.
EVAL_JOINTS = (1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16)
EVAL_NAMES = tuple(JOINT_ORDERS["h36m17"][row] for row in EVAL_JOINTS)


def rows_of_smpl30(order):
  """Returns the row of SMPL30 for each joint of an order in JOINT_ORDERS; -1: the joint is dropped."""
  return tuple(-1 if name is None else SMPL30.joints.index(name) for name in JOINT_ORDERS[order])


def flip_pairs_of(order):
  """Returns the flip pairs (left, right) of an order in JOINT_ORDERS."""
  rows = rows_of_smpl30(order)
  return tuple(
    (rows.index(left), rows.index(right))
    for left, right in SMPL30.flip_pairs
    if left in rows and right in rows
  )


SKELETONS = {skeleton.name: skeleton for skeleton in (COCO17, MPII16, AIC14, SMPL30)}

"""Joint orders of 3D pose: the tables of the specification, and their names."""

import numpy as np
import pytest

from hap_jax.data import skeletons
from hap_jax.data.skeletons import SKELETONS, SMPL30

# Row of SMPL30 for each joint of an order; -1: dropped.
ROWS = {
  "h36m17": (0, 2, 5, 8, 1, 4, 7, 3, 12, 24, 29, 16, 18, 20, 17, 19, 21),
  "muco21": (29, -1, 17, 19, 21, 16, 18, 20, 2, 5, 8, 1, 4, 7, 0, 6, 15, 23, 22, 11, 10),
  "coco17_pelvis": (24, 25, 26, 27, 28, 16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8, 0),
  "mpii16": (8, 5, 2, 1, 4, 7, 0, -1, 12, 29, 21, 19, 17, 16, 18, 20),
  "openpose18_pelvis": (24, 12, 17, 19, 21, 16, 18, 20, 2, 5, 8, 1, 4, 7, 26, 25, 28, 27, 0),
  "graph15": (0, 1, 2, 4, 5, 7, 8, 12, 29, 16, 17, 18, 19, 20, 21),
}
FLIPS = {
  "h36m17": ((1, 4), (2, 5), (3, 6), (14, 11), (15, 12), (16, 13)),
  "muco21": ((2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13), (17, 18), (19, 20)),
  "coco17_pelvis": ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
  "mpii16": ((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
  "graph15": ((1, 2), (3, 4), (5, 6), (9, 10), (11, 12), (13, 14)),
}


def as_sets(pairs):
  return {frozenset(pair) for pair in pairs}


def test_the_names_of_every_order_give_the_rows_of_the_specification():
  assert {order: skeletons.rows_of_smpl30(order) for order in skeletons.JOINT_ORDERS} == ROWS


@pytest.mark.parametrize("order", ROWS)
def test_the_way_to_smpl30_and_back_keeps_every_joint(order):
  rows = np.array(ROWS[order])
  kept = rows >= 0
  assert len(set(rows[kept])) == kept.sum()  # two joints never share a row
  target = np.full(30, -1)
  target[rows[kept]] = np.flatnonzero(kept)
  np.testing.assert_array_equal(target[rows[kept]], np.flatnonzero(kept))


@pytest.mark.parametrize("order", FLIPS)
def test_flip_pairs_equal_the_specification(order):
  found = skeletons.flip_pairs_of(order)
  assert as_sets(found) == as_sets(FLIPS[order])
  for left, right in found:
    names = skeletons.JOINT_ORDERS[order]
    assert names[left] == names[right].replace("right", "left")


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_every_left_joint_is_paired_with_the_same_right_joint(skeleton):
  expected = {
    frozenset((i, skeleton.joints.index(name.replace("left", "right"))))
    for i, name in enumerate(skeleton.joints)
    if "left" in name
  }
  assert as_sets(skeleton.flip_pairs) == expected
  assert len(set(skeleton.joints)) == len(skeleton.joints)
  for left, right in skeleton.flip_pairs:
    assert "left" in skeleton.joints[left]
    assert "right" in skeleton.joints[right]


def test_the_bones_of_smpl30_connect_all_joints_and_are_symmetric():
  partner = dict(SMPL30.flip_pairs) | {right: left for left, right in SMPL30.flip_pairs}
  bones = as_sets(SMPL30.bones)
  assert {frozenset(partner.get(joint, joint) for joint in bone) for bone in bones} == bones
  reached = {0}
  for _ in SMPL30.joints:
    reached |= {joint for bone in bones if bone & reached for joint in bone}
  assert reached == set(range(30))


def test_the_evaluation_compares_fourteen_named_joints():
  sides = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
  expected = {f"{side}_{name}" for side in ("left", "right") for name in sides} | {"neck", "head_top"}
  assert set(skeletons.EVAL_NAMES) == expected
  assert len(skeletons.EVAL_NAMES) == len(skeletons.EVAL_JOINTS) == 14

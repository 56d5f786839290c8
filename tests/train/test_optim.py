"""Parameter rules, updates and learning-rate schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.description import Encoder
from hap_jax.models import pose_estimator, vit
from hap_jax.train import optim
from tests import networks

PARAMS = {"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "pos_embed": jnp.ones((1, 3))}
RULES = (
  optim.Rule("pos_embed", trainable=False),
  optim.Rule(".*/bias", lr_scale=0.5),
  optim.Rule(".*", weight_decay=0.1),
)


def test_first_matching_rule_wins():
  matched = optim.match_rules(PARAMS, RULES)
  assert matched["a"]["bias"].lr_scale == 0.5
  assert matched["a"]["bias"].weight_decay == 0.0
  assert matched["a"]["kernel"].weight_decay == 0.1
  assert not matched["pos_embed"].trainable


def test_parameter_without_rule_is_an_error_that_names_it():
  with pytest.raises(ValueError, match="a/kernel matches no rule"):
    optim.match_rules(PARAMS, (optim.Rule(".*/bias"), optim.Rule("pos_embed")))


def test_update_follows_scale_and_decay_and_leaves_frozen_parameters():
  ones = {"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "pos_embed": jnp.ones((1, 3))}
  new = optim.apply_update(PARAMS, ones, 0.1, optim.match_rules(PARAMS, RULES))
  np.testing.assert_allclose(new["a"]["kernel"], 1 - 0.1 * (1 + 0.1), rtol=1e-6)
  np.testing.assert_allclose(new["a"]["bias"], 1 - 0.05, rtol=1e-6)
  np.testing.assert_array_equal(new["pos_embed"], 1)


def test_frozen_parameters_have_no_moments():
  direction = optim.make_direction(optim.OptimizerSpec(), optim.match_rules(PARAMS, RULES))
  shapes = [np.shape(leaf) for leaf in jax.tree.leaves(direction.init(PARAMS))]
  # (1, 3) is the shape of the frozen table. The kernel has two moments.
  assert (1, 3) not in shapes
  assert shapes.count((2, 2)) == 2


def test_unknown_optimizer_names_the_key():
  with pytest.raises(ValueError, match=r"config.optimizer.kind='lion'"):
    optim.OptimizerSpec(kind="lion")


def test_schedule_starts_and_ends_at_zero_and_peaks_after_warmup():
  lr = [float(optim.warmup_cosine(e, peak=2.0, warmup=10, total=100)) for e in (0, 5, 10, 55, 100)]
  np.testing.assert_allclose(lr, [0, 1, 2, 1, 0], atol=1e-6)


def test_schedule_without_warmup_starts_at_the_peak():
  assert float(optim.warmup_cosine(0.0, peak=2.0, warmup=0, total=5)) == 2.0


def test_schedule_of_the_official_person_reid():
  lr = {0: 0, 0.5: 8e-4, 2.5: 4e-3, 5: 8e-3, 10: 7.945445e-3, 50: 4.330317e-3, 52.5: 4e-3, 99: 2.186971e-6}
  found = optim.warmup_cosine(np.array(list(lr)), peak=8e-3, warmup=5, total=100)
  np.testing.assert_allclose(found, list(lr.values()), rtol=1e-6, atol=1e-9)


def pose_rate(step, progress, boundaries=(170, 200), warmup_steps=500):
  """Returns the learning rate of the official 2D pose on COCO."""
  schedule = jax.jit(
    lambda step, progress: optim.warmup_then_steps(
      step, progress, peak=2e-4, warmup_steps=warmup_steps, boundaries=boundaries
    )
  )
  return float(schedule(jnp.int32(step), jnp.float32(progress)))


@pytest.mark.parametrize(("step", "factor"), [(0, 0.001), (250, 0.5005), (499, 0.998002), (500, 1.0)])
def test_the_warm_up_of_the_official_pose_schedule(step, factor):
  assert pose_rate(step, step / 293) == pytest.approx(2e-4 * factor, rel=1e-7)


@pytest.mark.parametrize(("epoch", "factor"), [(169, 1), (170, 0.1), (199, 0.1), (200, 0.01), (209, 0.01)])
def test_the_drops_of_the_official_pose_schedule(epoch, factor):
  """The rate drops at the first step of an epoch. An epoch of COCO has 293 steps."""
  assert pose_rate(epoch * 293, epoch) == np.float32(2e-4 * factor)
  assert pose_rate(epoch * 293 + 292, epoch + 292 / 293) == np.float32(2e-4 * factor)


def test_drops_may_be_within_an_epoch_and_before_the_end_of_the_warm_up():
  assert pose_rate(600, 1.49, boundaries=(1.5,)) == np.float32(2e-4)
  assert pose_rate(600, 1.51, boundaries=(1.5,)) == np.float32(2e-5)
  assert pose_rate(250, 1.51, boundaries=(1.5,)) == pytest.approx(2e-5 * 0.5005, rel=1e-6)
  assert pose_rate(0, 0.0, warmup_steps=0) == pose_rate(10**6, 99.0, boundaries=()) == np.float32(2e-4)


@pytest.fixture(scope="module")
def groups():
  """Returns {(lr_scale, weight_decay): paths} of the parameters of the ReID network B/16 with the LEM.

  The key "frozen" has the paths of the parameters that do not train.
  """
  model = networks.reid(
    vit.variant("B"),
    image_size=(256, 128),
    patch=16,
    num_classes=751,
    locality=True,
    drop_path=0.0,
    dtype=jnp.float32,
    scan=True,
  )
  init = lambda key: model.init(key, jnp.zeros((1, 256, 128, 3)), train=False)  # noqa: E731
  params = jax.eval_shape(init, jax.random.key(0))["params"]
  matched = optim.match_rules(params, optim.layer_decay_rules(12, layer_decay=0.4, weight_decay=0.05))
  found = {}
  for path, rule in jax.tree_util.tree_leaves_with_path(matched):
    scales = rule.lr_scale if isinstance(rule.lr_scale, tuple) else (rule.lr_scale,)
    for scale in scales:
      key = (scale, rule.weight_decay) if rule.trainable else "frozen"
      found.setdefault(key, []).append(optim.path_name(path))
  return found


def test_layer_decay_gives_the_28_official_parameter_groups(groups):
  scales = [0.4 ** (13 - layer) for layer in range(14)]
  assert groups.keys() - {"frozen"} == {(scale, decay) for scale in scales for decay in (0, 0.05)}
  first = [f"encoder/{name}" for name in ("cls_token", "patch_embed/bias", "pos_embed")]
  assert sorted(groups[scales[0], 0]) == first
  assert groups[scales[0], 0.05] == ["encoder/patch_embed/kernel"]
  assert (len(groups[1, 0]), len(groups[1, 0.05])) == (28, 12)
  for scale in scales[1:13]:  # each block has 12 tensors
    assert (len(groups[scale, 0]), len(groups[scale, 0.05])) == (8, 4)
    assert all(path.startswith("encoder/blocks/") for path in groups[scale, 0] + groups[scale, 0.05])


def test_biases_before_the_reid_classifiers_do_not_train(groups):
  assert sorted(groups["frozen"]) == ["bn/bias", "conv_bn/bias"]


def test_each_block_of_a_stack_has_its_own_learning_rate():
  (rule,) = (
    r
    for r in optim.layer_decay_rules(3, layer_decay=0.5, weight_decay=0.1)
    if "kernel" in r.pattern and "blocks" in r.pattern
  )
  params, direction = np.full((3, 2, 4), 2.0), np.ones((3, 2, 4))
  found = optim.apply_update(params, direction, 0.25, rule)
  expected = [2 - 0.25 * scale * (1 + 0.1 * 2) for scale in (0.125, 0.25, 0.5)]
  np.testing.assert_allclose(found, np.broadcast_to(np.reshape(expected, (3, 1, 1)), (3, 2, 4)), rtol=1e-6)


@pytest.mark.parametrize("depth", [1, 2])
def test_learning_rates_for_another_depth_are_an_error(depth):
  rule = optim.Rule("encoder/blocks/.*", lr_scale=(0.5,) * depth)
  with pytest.raises(ValueError, match=f"for {depth} blocks; expected 3"):
    optim.apply_update(np.ones((3, 4)), np.ones((3, 4)), 0.1, rule)


def test_an_unknown_kind_of_parameter_matches_no_rule():
  rules = optim.layer_decay_rules(2, layer_decay=0.5, weight_decay=0.0)
  with pytest.raises(ValueError, match="blocks/attn/gamma matches no rule"):
    optim.match_rules({"encoder": {"blocks": {"attn": {"gamma": 0}}}}, rules)


def test_without_layer_decay_all_layers_have_the_same_rate():
  rules = optim.layer_decay_rules(3, layer_decay=1.0, weight_decay=0.1)
  assert {float(scale) for rule in rules for scale in np.ravel(rule.lr_scale)} == {1.0}


# Learning-rate multipliers of ids 0 to 13 in the official 2D pose, for three layer decays.
POSE_MULTIPLIERS = {
  0.80: (
    *(0.0549756, 0.0687195, 0.0858993, 0.107374, 0.134218, 0.167772, 0.209715, 0.262144),
    *(0.32768, 0.4096, 0.512, 0.64, 0.8, 1.0),
  ),
  0.77: (
    *(0.0334487, 0.0434399, 0.0564154, 0.0732668, 0.0951517, 0.123574, 0.160485, 0.208422),
    *(0.270678, 0.35153, 0.456533, 0.5929, 0.77, 1.0),
  ),
  0.75: (
    *(0.0237573, 0.0316764, 0.0422351, 0.0563135, 0.0750847, 0.100113, 0.133484, 0.177979),
    *(0.237305, 0.316406, 0.421875, 0.5625, 0.75, 1.0),
  ),
}


@pytest.mark.parametrize("layer_decay", POSE_MULTIPLIERS)
@pytest.mark.parametrize("head", pose_estimator.HEADS)
def test_rates_and_decays_of_the_pose_network_equal_the_official_values(head, layer_decay):
  encoder = Encoder.of_variant("B", image_size=(256, 192), patch=16, patch_padding=2, class_token=False)
  model = pose_estimator.PoseEstimator(encoder.build(), num_joints=(17,), head=head)
  init = lambda key: model.init(key, jnp.zeros((1, 256, 192, 3)), train=False)  # noqa: E731
  params = jax.eval_shape(init, jax.random.key(0))["params"]
  matched = optim.match_rules(params, optim.layer_decay_rules(12, layer_decay=layer_decay, weight_decay=0.1))
  first, *of_blocks, last = POSE_MULTIPLIERS[layer_decay]
  for path, rule in jax.tree_util.tree_leaves_with_path(matched):
    name = optim.path_name(path)
    expected = last
    if name.startswith("encoder/blocks/"):
      expected = of_blocks
    elif name.startswith(("encoder/pos_embed", "encoder/patch_embed")):
      expected = first
    np.testing.assert_allclose(rule.lr_scale, expected, rtol=5e-6, err_msg=name)
    assert rule.weight_decay == (0.1 if name.endswith("/kernel") else 0), name
    assert rule.trainable

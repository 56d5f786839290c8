"""Starting weights (`config.init_from`): the parts of each checkpoint family that a new run loads."""

import dataclasses

import jax
import numpy as np
import pytest

from hap_jax.convert import families, run
from hap_jax.description import Description, Encoder
from hap_jax.io import checkpoint_file, safetensors_file
from hap_jax.models import pose_estimator, posemb
from hap_jax.tasks import attributes, base, pretrain, reid
from hap_jax.train import initial
from tests.convert.reference_state import GRID, family_state, leaves

DECODER = {"width": 16, "depth": 1, "num_heads": 2}
# A pre-training network with grid 6x3. The files have a smaller grid, so the position tables are resized.
PRETRAIN = Description("pretrain", Encoder(16, 2, 2, (6, 3), 4), network={"decoder": DECODER})


def zeros(init):
  """Returns the variables of a network, all zero, so that every loaded value is visible."""
  shapes = jax.eval_shape(init, jax.random.key(0))
  return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


@pytest.fixture(scope="module")
def variables():
  return zeros(pretrain.make_init(pretrain.network(PRETRAIN)))


def write_source(folder, family, container):
  path = folder / f"{family}.safetensors"
  safetensors_file.save(path, family_state(family), {})
  if container == "file":
    return path
  out = folder / "folder"
  to = {"own": "orbax", "hugging_face": "hf-vit"}[container]
  run.convert(path, out, to=to, family=family, source_grid=GRID, heads=(2, 2), real=False)
  return out


@pytest.mark.parametrize(
  ("family", "container", "has_decoder"),
  [
    ("hap", "own", True),
    ("mae", "own", False),
    ("hap", "hugging_face", False),
    ("timm", "own", False),
    ("reid-vit", "own", False),
    ("reid-lem", "own", False),
    ("reid-lem", "hugging_face", False),
  ],
)
def test_a_run_can_start_from_the_encoder_of_every_family(
  tmp_path, variables, family, container, has_decoder
):
  weights = initial.read(write_source(tmp_path, family, container))
  fitted, report = pretrain.make_load(PRETRAIN)(variables, weights)
  fitted = leaves(fitted["params"])
  state = family_state(family)
  np.testing.assert_array_equal(fitted["encoder/blocks/mlp/fc2/bias"][1], state["blocks.1.mlp.fc2.bias"])
  moved = {name.partition("/")[0] for name, leaf in fitted.items() if np.any(leaf)}
  assert moved == {"encoder", *(["decoder"] if has_decoder else [])}
  assert fitted["encoder/pos_embed"].shape == (1, 19, 16)
  log = "\n".join(initial.lines(weights, report))
  assert "encoder/pos_embed 4x2 -> 6x3" in log
  assert ("head" in log) == (family.startswith("reid") and container == "own")
  assert families.load(family).licence in log


@pytest.mark.parametrize("family", ["mae", "hf-vitmae"])
def test_a_pre_training_from_mae_weights_starts_with_a_new_decoder(tmp_path, variables, family):
  path = tmp_path / "square.safetensors"
  # Official MAE models are square, so their files get a square grid.
  safetensors_file.save(path, family_state(family, grid=(3, 3)), {})
  weights = initial.read(path)
  fitted, report = pretrain.make_load(PRETRAIN)(variables, weights)
  fitted = leaves(fitted["params"])
  assert not any(np.any(leaf) for name, leaf in fitted.items() if name.startswith("decoder/"))
  assert any("kept at their initial values" in line for line in report.lines())


def test_a_missing_file_is_an_error_that_lists_the_accepted_formats(tmp_path):
  with pytest.raises(ValueError, match=r"config\.init_from=.*none: no such file or folder; expected a \.pth"):
    initial.read(tmp_path / "none")


def test_a_decoder_with_another_number_of_heads_is_an_error(tmp_path, variables):
  weights = initial.read(write_source(tmp_path, "hap", "own"))
  pretrain.make_load(PRETRAIN)(variables, weights)
  other = dataclasses.replace(PRETRAIN, network={"decoder": DECODER | {"num_heads": 4}})
  with pytest.raises(ValueError, match=r"decoder has 2 heads, but config\.model\.decoder_heads=4"):
    pretrain.make_load(other)(variables, weights)


def reid_of(pids, *, people="market1501", locality=True, grid=(6, 3)):
  return Description(
    "reid",
    Encoder(16, 2, 2, grid, 4),
    network={"locality": locality, "num_classes": len(pids)},
    normalization={"mean": [0.5] * 3, "std": [0.5] * 3, "range": [0, 1]},
    classes={"people": people, "pids": list(pids)} if people else {},
  )


def attributes_of(names, task="attributes"):
  return dataclasses.replace(
    reid_of([1]), task=task, network={"num_attributes": len(names)}, classes={"attribute_names": list(names)}
  )


INITS = {
  "reid": lambda description: base.make_init(reid.network(description), train=False),
  "attributes": lambda description: base.make_init(attributes.network(description)),
}
LOADS = {
  "reid": lambda description: base.make_load(
    description, neck=reid.NECK, heads=reid.HEADS, layout=("locality",)
  ),
  "attributes": lambda description: base.make_load(description, heads=("classifier",)),
}


# A task whose encoder has no class token and a padding, as in 2D pose.
POSE = Encoder(16, 2, 2, (6, 3), 4, patch_padding=1, class_token=False)


def pose_of(channels=(8, 8), joints=("nose", "neck"), grid=(6, 3)):
  return Description(
    "pose2d",
    dataclasses.replace(POSE, grid=grid),
    network={"num_joints": len(joints), "head": "classic", "head_channels": channels},
    classes={"joints": list(joints)},
  )


def make_pose_init(description):
  network = description.network
  model = pose_estimator.PoseEstimator(
    description.encoder.build(), (network["num_joints"],), network["head"], network["head_channels"]
  )
  return base.make_init(model, train=False)


INITS["pose2d"] = make_pose_init
LOADS["pose2d"] = lambda description: base.make_load(
  description, heads=("keypoint_head",), layout=("head", "head_channels"), own_norm_only=True
)


def start(folder, given, own):
  """Starts a run with Description `own` from weights of ones with Description `given`.

  Returns:
    ({subtree: True if all of it was loaded, False if none, None if only a part}, lines of the log).
  """
  ones = jax.tree.map(np.ones_like, zeros(INITS[given.task](given)))
  checkpoint_file.write(folder / "given", ones, given.to_json())
  weights = initial.read(folder / "given")
  fitted, report = LOADS[own.task](own)(zeros(INITS[own.task](own)), weights)
  taken = {}
  for tree in fitted.values():
    for name, leaf in leaves(tree).items():
      stack = name.partition("/")[0]
      # A resized position table is not exactly 1 everywhere.
      is_taken = bool(np.all(leaf == 1)) if "pos_embed" not in name else bool(np.any(leaf))
      taken[stack] = is_taken if taken.get(stack, is_taken) == is_taken else None
  return taken, "\n".join(initial.lines(weights, report))


@pytest.mark.parametrize(
  "given",
  [
    reid_of([1, 2, 3, 4]),
    reid_of([4, 5, 6]),
    reid_of([1, 2, 3], people="msmt17"),
    reid_of([1, 2, 3], people=""),
  ],
  ids=["more persons", "other persons", "another data set", "not recorded"],
)
def test_reid_weights_of_other_persons_give_encoder_and_neck_but_no_classifier(tmp_path, given):
  taken, log = start(tmp_path, given, reid_of([1, 2, 3]))
  assert taken == {"encoder": True, **dict.fromkeys(reid.NECK, True), "head": False, "conv_fc": False}
  assert "kept at their initial values: 4 (conv_fc/bias, conv_fc/kernel, head/bias, head/kernel)" in log
  reason = "it has other classes" if given.classes else "it does not record its classes"
  assert f"the heads of the file are not used: {reason}" in log


def test_reid_weights_of_the_same_persons_also_give_the_classifier(tmp_path):
  taken, log = start(tmp_path, reid_of([1, 2, 3], grid=(4, 2)), reid_of([1, 2, 3]))
  assert set(taken.values()) == {True}
  assert "encoder/pos_embed 4x2 -> 6x3" in log


def test_reid_weights_without_the_locality_module_give_only_the_encoder(tmp_path):
  taken, log = start(tmp_path, reid_of([1, 2, 3], locality=False), reid_of([1, 2, 3]))
  assert [name for name, is_taken in taken.items() if is_taken] == ["encoder"]
  assert "config.model.locality=True, but the file has False" in log


@pytest.mark.parametrize(
  ("names", "is_same"), [(["Hat", "Female"], True), (["Female", "Hat"], False), (["Hat", "Boots"], False)]
)
def test_attribute_weights_give_their_classifier_if_names_and_order_are_the_same(tmp_path, names, is_same):
  taken, _ = start(tmp_path, attributes_of(names), attributes_of(["Hat", "Female"]))
  assert taken == {"encoder": True, "classifier": is_same}


def test_weights_of_another_task_give_only_the_encoder(tmp_path):
  taken, log = start(tmp_path, attributes_of(["Hat", "Female"]), reid_of([1, 2, 3]))
  assert [name for name, is_taken in taken.items() if is_taken] == ["encoder"]
  assert "in the file, not used: 2 (classifier/bias, classifier/kernel)" in log


@pytest.mark.parametrize(
  ("given", "has_head", "reason"),
  [
    (pose_of(), True, ""),
    (pose_of(joints=("neck", "nose")), False, "the heads of the file are not used: it has other classes"),
    (pose_of(channels=(8, 4)), False, "config.model.head_channels=(8, 8), but the file has [8, 4]"),
  ],
  ids=["same joints", "other joints", "other channels"],
)
def test_pose_weights_give_their_final_norm_and_the_head_of_the_same_joints(
  tmp_path, given, has_head, reason
):
  taken, log = start(tmp_path, given, pose_of())
  assert taken == {"encoder": True, "keypoint_head": has_head}
  assert reason in log
  for word in ("final norm", "class token", "shifted"):
    assert word not in log


KEPT = 7.0


def random_start(folder, given, own, load):
  """Starts a run from random weights; its own initial values are all KEPT.

  Returns:
    (weights of the file, fitted parameters, lines of the log).
  """
  rng = np.random.default_rng(0)
  drawn = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), zeros(INITS[given.task](given)))
  checkpoint_file.write(folder / "given", drawn, given.to_json())
  weights = initial.read(folder / "given")
  variables = jax.tree.map(lambda x: np.full_like(x, KEPT), zeros(INITS[own.task](own)))
  fitted, report = load(variables, weights)
  return leaves(drawn["params"]), leaves(fitted["params"]), "\n".join(initial.lines(weights, report))


@pytest.mark.parametrize("map_norm", [False, True])
def test_a_pose_run_starts_from_the_weights_of_other_tasks(tmp_path, map_norm):
  own = pose_of()
  load = base.make_load(own, heads=("keypoint_head",), own_norm_only=not map_norm)
  given = attributes_of(["Hat", "Female"])
  given = dataclasses.replace(given, encoder=dataclasses.replace(given.encoder, grid=(4, 2)))
  drawn, fitted, log = random_start(tmp_path, given, own, load)
  for name, value in fitted.items():
    if name == "encoder/pos_embed":
      value, expected = value[:, 1:], posemb.resize_table(drawn[name], (4, 2), (6, 3))[:, 1:]
      np.testing.assert_array_equal(value, expected)
      np.testing.assert_array_equal(fitted[name][:, 0], drawn[name][:, 0])
    elif name.startswith("encoder/norm/") and not map_norm:
      np.testing.assert_array_equal(value, KEPT)
    elif name.startswith("encoder/"):
      np.testing.assert_array_equal(value, drawn[name], err_msg=name)
  assert "encoder/cls_token" not in fitted
  assert "the class token of the file is not used: the network has none" in log
  assert (
    "the patches are shifted by 1 pixels relative to the file: padding 0 in the file, 1 in the network" in log
  )
  reason = "the file was not trained for pose2d; config.model.map_norm=True loads its norm"
  assert (f"the final norm of the encoder starts at scale 1 and bias 0: {reason}" in log) != map_norm


def test_another_task_starts_from_the_weights_of_a_pose_run(tmp_path):
  own = attributes_of(["Hat", "Female"])
  drawn, fitted, log = random_start(tmp_path, pose_of(grid=(4, 2)), own, LOADS["attributes"](own))
  table = posemb.resize_table(drawn["encoder/pos_embed"], (4, 2), (6, 3))
  np.testing.assert_array_equal(fitted["encoder/pos_embed"][:, 0], 0)
  np.testing.assert_array_equal(fitted["encoder/pos_embed"][:, 1:], table[:, 1:] + table[:, :1])
  np.testing.assert_array_equal(fitted["encoder/norm/scale"], drawn["encoder/norm/scale"])
  np.testing.assert_array_equal(fitted["encoder/cls_token"], KEPT)
  kept = next(line for line in log.splitlines() if "kept at their initial values: 3 (" in line)
  assert all(name in kept for name in ("encoder/cls_token", "classifier/bias", "classifier/kernel"))
  change = "row 0 of its position table was added to the rows of the patches and is now 0"
  assert f"the class token is new: the file has none; {change}" in log
  assert "padding 1 in the file, 0 in the network" in log

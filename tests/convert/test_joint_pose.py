"""2D pose networks of several data sets, with experts and several heads: read, written, split and loaded."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from hap_jax.cli.__main__ import main as hap
from hap_jax.convert import families, fit, pose_data_sets, read, run
from hap_jax.convert import write as writing
from hap_jax.convert.weights import flatten
from hap_jax.data.skeletons import AIC14, COCO17, MPII16
from hap_jax.description import Description
from hap_jax.io import safetensors_file, torch_file
from hap_jax.tasks import pose2d
from tests.convert.reference_state import GRID, family_state

WIDTH, PART, DEPTH = 16, 4, 2
JOINT, PLUS = (
  (3, (17, 17, 17)),
  (6, (17, 14, 16, 17, 17, 133)),
)  # numbers of experts, and of heat maps of the heads
LABELS = ("coco", "aic", "mpii")
KNOWN = {"source_grid": GRID, "heads": (2, None), "real": False}
JOINTS = {"coco": COCO17.joints, "aic": AIC14.joints, "mpii": MPII16.joints}
RULES = {"skeleton": ["coco17", "aic14", "mpii16"], "codec": ["udp", "msra", "udp"]}


def joint_state(family="vitpose", head="simple", kind=JOINT):
  """Returns the tensors of a network of several data sets with the names in the file."""
  num_experts, counts = kind
  variant = ("classic", "simple").index(head)
  state, rng = family_state(family, variant=variant, num_classes=counts[0]), np.random.default_rng(3)
  for name in [name for name in state if ".mlp.fc2." in name and num_experts > 1]:
    for number in range(num_experts):
      own = name.replace(".fc2.", f".experts.{number}.")
      state[own] = rng.normal(0, 0.2, (PART, *state[name].shape[1:])).astype(np.float32)
    state[name] = state[name][:-PART]
  first = {name: array for name, array in state.items() if name.startswith("keypoint_head.")}
  for k, count in enumerate(counts[1:] if family == "vitpose" else ()):
    for name, array in first.items():
      shape = (count, *array.shape[1:]) if ".final_layer." in name else array.shape
      own = rng.normal(0, 0.2, shape).astype(array.dtype) if array.dtype == np.float32 else array
      state[name.replace("keypoint_head.", f"associate_keypoint_heads.{k}.")] = (
        np.abs(own) + np.float32(0.5) if name.endswith("running_var") else own
      )
  return {families.load(family).in_file(name): array for name, array in state.items()}


def assert_same(got, want):
  assert got.keys() == want.keys()
  for name, array in want.items():
    np.testing.assert_array_equal(got[name], array, err_msg=name, strict=True)


@pytest.fixture
def joint(write):
  """Returns a function that writes a file of the official code and returns its path."""
  return lambda **options: write({"state_dict": joint_state(**options)})


@pytest.mark.parametrize("head", ["classic", "simple"])
def test_a_file_of_the_joint_run_comes_back_bit_for_bit_after_two_conversions(joint, tmp_path, head):
  state = joint_state(head=head)
  there = run.convert(joint(head=head), tmp_path / "own", **KNOWN)
  assert there["proof"]["outputs"].keys() == {"tokens", "heatmaps", "heatmaps_1", "heatmaps_2"}
  back = run.convert(tmp_path / "own", tmp_path / "back.pth", to="vitpose", real=False)
  assert back["proof"]["max_abs_error"] == 0
  assert_same(torch_file.load(tmp_path / "back.pth")["state_dict"], state)
  own, again = (read.read(tmp_path / name) for name in ("own", "back.pth"))
  assert (again.description.network, again.description.classes) == (
    own.description.network,
    own.description.classes,
  )
  assert not own.unused
  encoder = own.description.encoder
  assert (encoder.num_experts, encoder.part_features) == (3, PART)
  assert own.description.network == {
    **RULES,
    "num_joints": [17, 17, 17],
    "head": head,
    "head_channels": [8, 6] if head == "classic" else [],
    "fit_aspect": [True, True, False],
    "datasets": list(LABELS),
    "experts": list(LABELS),
    "assumed": "the data sets coco, aic, mpii of the heads and coco, aic, mpii of the experts, with the "
    "settings of the official training: the file does not record its data sets",
  }
  assert own.description.classes == {label: list(joints) for label, joints in JOINTS.items()}


def test_of_the_larger_model_the_heads_for_people_are_used_and_the_others_listed(joint, tmp_path):
  weights = read.read(joint(kind=PLUS), grid=GRID)
  network = weights.description.network
  assert weights.description.encoder.num_experts == 6
  assert (network["datasets"], network["num_joints"]) == (list(LABELS), [17, 14, 16])
  assert network["experts"] == [*LABELS, "ap10k", "apt36k", "wholebody"]
  unused = {name.split(".")[1] for name in weights.unused}
  assert unused == {"2", "3", "4"}
  report = run.convert(joint(kind=PLUS), tmp_path / "mpii", dataset="mpii", **KNOWN)
  assert report["proof"]["outputs"].keys() == {"tokens", "heatmaps"}
  assert read.read(tmp_path / "mpii").description.network["num_joints"] == 16


def test_heads_without_experts_are_a_network_of_several_data_sets(joint, tmp_path):
  """The plain joint model of ViTPose shares the whole encoder."""
  path = joint(kind=(1, (17, 17, 17)))
  report = run.convert(path, tmp_path / "own", **KNOWN)
  assert "heatmaps_2" in report["proof"]["outputs"]
  weights = read.read(tmp_path / "own")
  assert weights.description.encoder.num_experts == 1
  assert (weights.description.network["datasets"], weights.description.network["experts"]) == (
    list(LABELS),
    [],
  )
  run.convert(tmp_path / "own", tmp_path / "back.pth", to="vitpose", real=False)
  assert_same(torch_file.load(tmp_path / "back.pth")["state_dict"], joint_state(kind=(1, (17, 17, 17))))


@pytest.mark.parametrize("label", LABELS)
def test_a_split_network_holds_its_expert_and_head_bit_for_bit(joint, tmp_path, label):
  state, k = joint_state(head="classic"), LABELS.index(label)
  report = run.convert(joint(head="classic"), tmp_path / "split.pth", to="vitpose", dataset=label, **KNOWN)
  # The proof compares the outputs of this expert and this head of the source.
  assert report["proof"]["outputs"].keys() == {"tokens", "heatmaps"}
  for error in report["proof"]["outputs"].values():
    assert error["max_abs_error"] <= 1e-6 * max(1, error["max_abs_value"])
  found = torch_file.load(tmp_path / "split.pth")["state_dict"]
  K = len(JOINTS[label])
  own = "keypoint_head." if k == 0 else f"associate_keypoint_heads.{k - 1}."
  for name, array in found.items():
    if ".mlp.fc2." in name:
      expert = name.replace(".fc2.", f".experts.{k}.")
      expected = np.concatenate([state[name], state[expert]])
    else:
      expected = state[name.replace("keypoint_head.", own)]
      expected = expected[:K] if ".final_layer." in name else expected
    np.testing.assert_array_equal(array, expected, err_msg=name)
  split = read.read(tmp_path / "split.pth")
  assert split.description.classes == {"joints": list(JOINTS[label])}
  assert (split.description.network["codec"], split.description.encoder.num_experts) == (RULES["codec"][k], 1)
  others = [f"associate_keypoint_heads.{n - 1}." if n else "keypoint_head." for n in range(3) if n != k]
  assert {name for name in report["unused"] if "num_batches" not in name} == {
    name for name in state if name.startswith(tuple(others)) and "num_batches" not in name
  }


def test_a_folder_of_transformers_holds_all_experts_and_the_first_head(joint, tmp_path):
  run.convert(joint(), tmp_path / "own", **KNOWN)
  report = run.convert(tmp_path / "own", tmp_path / "folder", to="hf-vitpose", real=False)
  assert report["proof"]["outputs"].keys() == {"tokens", "heatmaps"}
  dropped = {path.split("/")[0] for path in report["unused"]}
  assert dropped == {"associate_keypoint_heads_0", "associate_keypoint_heads_1"}
  config = json.loads((tmp_path / "folder" / "config.json").read_text())
  assert (config["backbone_config"]["num_experts"], config["backbone_config"]["part_features"]) == (3, PART)
  assert list(config["id2label"].values()) == list(COCO17.joints)
  assert (
    "`dataset_index`, the index of the data set in this list" in (tmp_path / "folder/README.md").read_text()
  )
  network = read.read(tmp_path / "folder").description.network
  assert (network["datasets"], network["experts"], network["num_joints"]) == (["coco"], list(LABELS), [17])


@pytest.mark.parametrize("kind", [JOINT, PLUS])
def test_a_folder_with_experts_comes_back_bit_for_bit(tmp_path, kind):
  state = joint_state("hf-vitpose", kind=kind)
  (tmp_path / "folder").mkdir()
  safetensors_file.save(tmp_path / "folder" / "model.safetensors", state, {})
  report = run.convert(tmp_path / "folder", tmp_path / "own", **KNOWN)
  assert report["model"]["experts"] == [*LABELS, "ap10k", "apt36k", "wholebody"][: kind[0]]
  assert (report["model"]["datasets"], report["model"]["skeleton"]) == (["coco"], ["coco17"])
  run.convert(tmp_path / "own", tmp_path / "back", to="hf-vitpose", real=False)
  assert_same(safetensors_file.load(tmp_path / "back" / "model.safetensors")[0], state)


def test_transformers_gives_the_same_heat_maps_with_the_index_of_the_data_set(joint, tmp_path):
  pytest.importorskip("torch")
  pytest.importorskip("transformers")
  report = run.convert(joint(), tmp_path / "folder", to="hf-vitpose", **{**KNOWN, "real": True})
  # The two pictures of the proof use the first and the last expert.
  error = report["proof"]["real_class"]["outputs"]["heatmaps"]
  assert error["max_abs_error"] <= 1e-5 * error["max_abs_value"]


def test_describe_states_the_experts_and_the_data_sets(joint, capsys):
  assert hap(["describe", str(joint())]) == 0
  text = capsys.readouterr().out
  assert ", 3 experts with 4 outputs in each MLP" in text
  assert "datasets ['coco', 'aic', 'mpii']" in text


def test_a_family_without_experts_is_refused(joint, tmp_path):
  run.convert(joint(), tmp_path / "own", **KNOWN)
  weights = read.read(tmp_path / "own")
  encoder = dataclasses.replace(weights.description.encoder, patch_padding=0, class_token=True)
  weights = dataclasses.replace(
    weights, description=dataclasses.replace(weights.description, encoder=encoder)
  )
  with pytest.raises(ValueError, match=r"--to=timm: its files have no experts, .* choose .* with --dataset"):
    writing.check_target(weights, "timm")


def test_an_unknown_data_set_is_an_error(joint, tmp_path, capsys):
  path = joint()
  with pytest.raises(ValueError, match="--dataset=cats: the checkpoint has the data sets coco, aic, mpii"):
    run.convert(path, tmp_path / "out", dataset="cats", **KNOWN)
  run.convert(path, tmp_path / "aic", dataset="aic", **KNOWN)
  with pytest.raises(
    ValueError, match=r"--dataset=aic: .* is a network of one data set: leave out --dataset"
  ):
    run.convert(tmp_path / "aic", tmp_path / "again", dataset="aic", real=False)
  safetensors_file.save(tmp_path / "hap.safetensors", family_state("hap"), {})
  words = ["--from=hap", "--source_grid=4x2", "--num_heads=2", "--decoder_heads=2", "--dataset=aic"]
  assert hap(["convert", str(tmp_path / "hap.safetensors"), f"--out={tmp_path / 'x'}", *words]) == 1
  assert "--dataset=aic: networks of the task pretrain have no part" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("change", "match"),
  [
    (
      lambda state: state.pop("backbone.blocks.1.mlp.experts.1.weight"),
      "missing tensors .*blocks.1.mlp.experts.1",
    ),
    (
      lambda state: _rename(state, "experts.2.", "experts.5."),
      "has 3 experts, but no expert with the number 2",
    ),
    (
      lambda state: _drop(state, "experts.1.", "experts.2."),
      "has 1 experts with 4 outputs, and 12 shared outputs",
    ),
    (lambda state: _drop(state, "blocks.0.mlp.fc2."), "has 3 experts with 4 outputs, and 0 shared outputs"),
    (
      lambda state: _drop(state, "heads.1.final_layer.weight"),
      "missing tensors .*heads.1.final_layer.weight",
    ),
  ],
)
def test_damaged_experts_and_heads_are_errors(write, change, match):
  state = joint_state()
  change(state)
  with pytest.raises(ValueError, match=match):
    read.read(write({"state_dict": state}))


def _drop(state, *parts):
  for name in [name for name in state if any(part in name for part in parts)]:
    del state[name]


def _rename(state, old, new):
  for name in [name for name in state if old in name]:
    state[name.replace(old, new)] = state.pop(name)


@pytest.mark.parametrize(
  ("key", "value", "match"),
  [
    ("datasets", "coco", "records the data sets 'coco'"),
    ("datasets", ["coco", "coco", "mpii"], "records the data sets"),
    ("codec", ["udp"], r"records codec=\['udp'\], expected a value for each of coco, aic, mpii"),
    ("skeleton", 5, "records skeleton=5"),
    ("experts", ["coco"], "has 3 experts for coco; expected one label for each expert"),
    ("experts", ["coco", "aic", "cats"], "has 3 experts for coco, aic, cats; expected .* coco, aic, mpii"),
  ],
)
def test_a_damaged_record_of_data_sets_is_an_error(joint, key, value, match):
  weights = read.read(joint(), grid=GRID).with_encoder(num_heads=2).with_network(**{key: value})
  with pytest.raises(ValueError, match=match):
    pose2d.network(weights.description)


def test_more_recorded_joints_than_heat_maps_are_an_error(joint):
  weights = read.read(joint(kind=(3, (17, 14, 16))), grid=GRID)
  classes = {**weights.description.classes, "aic": [str(k) for k in range(15)]}
  described = dataclasses.replace(weights.description, classes=classes)
  with pytest.raises(ValueError, match="heads_0 has 14 heat maps, but it records 15 joints"):
    pose_data_sets.take(dataclasses.replace(weights, description=described), "aic")


# Starting weights


def make_description(weights, labels, num_experts=None, num_joints=17):
  """Returns the Description of a run on the data sets of these labels."""
  skeletons = {"coco": COCO17, "aic": AIC14, "mpii": MPII16}
  num_experts = len(labels) if num_experts is None else num_experts
  encoder = dataclasses.replace(
    weights.description.encoder,
    num_heads=2,
    num_experts=num_experts,
    part_features=PART if num_experts > 1 else 0,
  )
  return Description(
    "pose2d",
    encoder,
    network={
      "num_joints": [num_joints] * len(labels),
      "skeleton": [skeletons[label].name for label in labels],
      "head": "simple",
      "head_channels": [],
      "codec": ["udp"] * len(labels),
      "fit_aspect": [True] * len(labels),
      "datasets": list(labels),
      "experts": list(labels) if num_experts > 1 else [],
    },
    classes={label: list(skeletons[label].joints) for label in labels},
  )


def load(weights, description):
  """Returns ({path: array} after the start of a run from the weights, the lines of its report)."""
  model = pose2d.network(description)
  image = np.zeros((1, 32, 16, 3), np.float32)
  variables = jax.eval_shape(lambda key: model.init(key, image, train=False, head=None), jax.random.key(0))
  variables = jax.tree.map(lambda x: np.full(x.shape, 7, np.float32), variables)
  variables, report = pose2d.make_load(description, False)(variables, weights)
  return flatten(variables["params"]), report


def test_a_dense_encoder_starts_every_expert_with_its_last_outputs(write):
  weights = read.read(write({"state_dict": joint_state(kind=(1, (17,)))}), grid=GRID)
  params, report = load(weights, make_description(weights, ("aic", "coco")))
  dense = flatten(weights.params)
  for leaf in ("kernel", "bias"):
    path = f"encoder/blocks/mlp/fc2/{leaf}"
    last = dense[path][..., -PART:]
    np.testing.assert_array_equal(params[path], np.concatenate([dense[path], last], axis=-1))
  assert "the last 4 outputs of each MLP of the file start all 2 experts" in report.notes
  # The only head of the file has the joints of the second data set.
  np.testing.assert_array_equal(
    params["associate_keypoint_heads_0/final_layer/kernel"], dense["keypoint_head/final_layer/kernel"]
  )
  assert (params["keypoint_head/final_layer/kernel"] == 7).all()
  assert "heads without a head of the same data set and joints in the file: aic" in report.notes


def test_experts_and_heads_of_a_file_are_taken_by_their_data_sets(joint):
  weights = read.read(joint(kind=PLUS), grid=GRID)
  params, report = load(weights, make_description(weights, ("mpii", "coco")))
  file, shared = flatten(weights.params), WIDTH - PART
  for leaf in ("kernel", "bias"):
    path = f"encoder/blocks/mlp/fc2/{leaf}"
    columns = [*range(shared), *(shared + 2 * PART + np.arange(PART)), *(shared + np.arange(PART))]
    np.testing.assert_array_equal(params[path], file[path][..., columns])
  assert "the experts of the file for mpii, coco are used" in report.notes
  # The head for MPII has 16 heat maps in this file, and 17 in the run.
  assert (params["keypoint_head/final_layer/kernel"] == 7).all()
  np.testing.assert_array_equal(
    params["associate_keypoint_heads_0/final_layer/kernel"], file["keypoint_head/final_layer/kernel"]
  )
  assert any("associate_keypoint_heads.1.final_layer.bias" in name for name in report.unused)


def test_all_heads_of_a_joint_file_are_taken_in_any_order(joint):
  weights = read.read(joint(), grid=GRID)
  params, report = load(weights, make_description(weights, ("mpii", "coco", "aic")))
  assert set(report.missing) == {"encoder/norm/bias", "encoder/norm/scale"} - set(report.loaded)
  file = flatten(weights.params)
  for own, source in zip(
    ("keypoint_head", "associate_keypoint_heads_0", "associate_keypoint_heads_1"),
    ("associate_keypoint_heads_1", "keypoint_head", "associate_keypoint_heads_0"),
    strict=True,
  ):
    for leaf in ("kernel", "bias"):
      np.testing.assert_array_equal(params[f"{own}/final_layer/{leaf}"], file[f"{source}/final_layer/{leaf}"])


@pytest.mark.parametrize(
  ("labels", "kind", "match"),
  [
    (("coco", "aic", "mpii"), (2, (17,)), "has experts for expert_0, expert_1, but none for coco, aic, mpii"),
    (
      ("coco", "cats"),
      JOINT,
      r"has experts for coco, aic, mpii, but none for cats in config\.data\.mixed\.parts",
    ),
  ],
)
def test_a_file_without_an_expert_for_a_data_set_is_an_error(joint, labels, kind, match):
  weights = read.read(joint(kind=kind), grid=GRID)
  known = [label if label in JOINTS else "coco" for label in labels]
  description = make_description(weights, known, num_experts=len(labels))
  description = dataclasses.replace(
    description,
    network={**description.network, "datasets": list(labels), "experts": list(labels)},
    classes=dict(zip(labels, description.classes.values(), strict=False)),
  )
  with pytest.raises(ValueError, match=match):
    pose_data_sets.fit(weights, description)


def test_another_size_of_the_experts_is_an_error(joint):
  weights = read.read(joint(), grid=GRID)
  description = make_description(weights, LABELS)
  encoder = dataclasses.replace(description.encoder, part_features=8)
  with pytest.raises(
    ValueError, match=r"its experts have 4 outputs, but config\.model\.part_features makes 8"
  ):
    pose_data_sets.fit(weights, dataclasses.replace(description, encoder=encoder))


def test_a_run_of_one_data_set_takes_the_expert_and_head_with_its_joints(joint):
  weights = read.read(joint(), grid=GRID)
  single = pose_data_sets.of_label(make_description(weights, ("aic",), num_experts=1))
  params, report = load(weights, single)
  taken = flatten(pose_data_sets.take(weights, "aic").params)
  for path, array in params.items():
    np.testing.assert_array_equal(array, taken[path], err_msg=path)
  assert "the file has several data sets: those parts for aic are used" in report.notes


def test_another_task_takes_the_first_expert(joint):
  """Networks of all other tasks have no experts."""
  weights = read.read(joint(), grid=GRID)
  encoder = dataclasses.replace(weights.description.encoder, num_heads=2, num_experts=1, part_features=0)
  model = encoder.build()
  shapes = jax.eval_shape(lambda key: model.init(key, np.zeros((1, 8, 192), np.float32)), jax.random.key(0))
  variables = {"params": {"encoder": jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes["params"])}}
  variables, report = fit.fit_to(variables, weights, grid=GRID, num_heads=2, patch_padding=2)
  taken = flatten(pose_data_sets.take(weights).params)
  for path, array in flatten(variables["params"]).items():
    np.testing.assert_array_equal(array, taken[path], err_msg=path)
  assert "of the experts in the file, the first one is used" in report.notes

"""One small ViT in the wrappings in which people have it: the same features, or an error that names a remedy.

Every case also goes through `hap describe`.
"""

import collections
import dataclasses
import datetime
import fractions
import functools
import json
import pathlib
import pickle
import re
import types
from typing import Any

import jax
import numpy as np
import pytest

import hap_jax
from hap_jax.cli.__main__ import main
from tests.convert.reference_state import blocks, encoder_state
from tests.io import torch_bytes

SIZES = {"grid": (3, 3), "width": 128, "depth": 4}  # ViT-Mu, whose number of heads is known
HEADS = {"head.weight": np.ones((5, 128), np.float32), "head.bias": np.ones(5, np.float32)}
IMAGES = np.random.default_rng(0).standard_normal((2, 12, 12, 3), np.float32)


@functools.cache
def vit():
  """Returns the state dict of the ViT. Its weights are as large as trained ones."""
  return {name: array * np.float32(0.2) for name, array in encoder_state(**SIZES).items()}


@functools.cache
def other():
  """Returns the state dict of another ViT of the same size."""
  return {name: array + np.float32(0.1) for name, array in vit().items()}


def under(prefix, state=None, **more):
  """Returns a state dict, by default that of the ViT, with a prefix before each name, and other tensors."""
  return {f"{prefix}{name}": array for name, array in (state or vit()).items()} | more


def pickled(value):
  """Returns an object as the opcodes that pickle writes for it."""
  return torch_bytes.Raw(pickle.dumps(value, 2)[2:-1])


def named(prefix, names, width=128):
  return {f"{prefix}{name}": np.ones((3, width), np.float32) for name in names}


def within_blocks(part):
  """Returns the state dict with a module between each block and its parts."""
  return {re.sub(r"^(blocks\.\d+)\.", rf"\1.{part}.", name): array for name, array in vit().items()}


@dataclasses.dataclass(frozen=True)
class Case:
  """A file and its expected reading.

  Attributes:
    content: the content of the file.
    options: options of the command, such as "--key=teacher".
    taken: the line of `describe` about entry and prefix.
    unused: names of tensors that `describe` lists as not used.
    objects: names of classes that `describe` lists as not read.
    error: words of the error. "": the file is read.
    stage: the stage in `describe`.
  """

  content: Any
  options: tuple[str, ...] = ()
  taken: str = ""
  unused: frozenset = frozenset()
  objects: tuple[str, ...] = ()
  error: str = ""
  stage: str = "encoder; the file does not state its training task"


def entry(*keys, **more):
  content = vit()
  for key in reversed(keys):
    content = {key: content}
  return Case(content | more, taken=f"entry {'.'.join(keys)!r}")


def prefix(text, shown=None, **more):
  return Case(under(text), taken=f"names with the prefix {(shown or text)!r}", **more)


DINO_HEAD = named("", ("head.mlp.0.weight", "head.last_layer.weight_g"))
MOCO = {
  **under("module.base_encoder.", {**vit(), **named("", ("head.0.weight",))}),
  **under("module.momentum_encoder.", other()),
  **named("module.", ("predictor.0.weight",)),
}
DINOV2 = {
  **under("teacher.backbone."),
  **under("student.backbone.", other()),
  **named("teacher.", ("dino_head.last_layer.weight",)),
  **named("student.", ("dino_head.last_layer.weight",)),
}
DECODER = blocks(np.random.default_rng(1), "decoder_blocks", 1, 16) | named("", ("decoder_embed.weight",))
NECK = named("", ("neck.conv.weight",))
CLASSIFIER = "encoder of a classifier"
SPARSE = torch_bytes.Raw(b"ctorch._utils\n_rebuild_sparse_tensor\n(K\x01tR")

CASES = {
  # Entries
  "bare": Case(vit()),
  **{key: entry(key) for key in ("model", "state_dict", "module", "model_state_dict", "net", "network")},
  **{
    key: entry(key)
    for key in ("ema", "model_ema", "state_dict_ema", "teacher", "student", "weights", "encoder")
  },
  "two entries": entry("model", "state_dict"),
  "three entries": entry("checkpoint", "model", "module"),
  "epoch and arch": entry("model", epoch=3, arch="vit_base_patch16_224", best_acc1=0.5),
  # Prefixes
  "DataParallel": Case(under("module.")),
  "compiled": Case(under("_orig_mod.")),
  "compiled in DataParallel": Case(under("module._orig_mod.")),
  "DataParallel in compiled": Case(under("_orig_mod.module.")),
  **{
    text: prefix(text)
    for text in ("model.", "net.", "encoder.", "backbone.", "base.", "mae.", "visual.trunk.")
  },
  "Lightning, compiled": prefix("model._orig_mod.backbone.", "model.backbone."),
  "MoCo v3 alone": prefix("module.base_encoder."),
  "flat teacher": prefix("teacher.backbone."),
  "flat student": prefix("student.backbone."),
  "compiled blocks": Case(within_blocks("_orig_mod")),
  "checkpointed blocks": Case(within_blocks("_checkpoint_wrapped_module")),
  "FSDP": Case(under("_fsdp_wrapped_module.", within_blocks("_fsdp_wrapped_module"))),
  "entry and prefixes": Case(
    {"state_dict": under("module.model."), "epoch": 1},
    taken="entry 'state_dict', names with the prefix 'module.model.'",
  ),
  # Heads
  "classifier": Case(
    {"model": vit() | HEADS}, taken="entry 'model'", unused=frozenset(HEADS), stage=CLASSIFIER
  ),
  "classifier in DataParallel": Case(
    under("module.", vit() | HEADS), unused=frozenset(f"module.{name}" for name in HEADS), stage=CLASSIFIER
  ),
  "ReID": Case(
    under("base.") | named("", ("classifier.weight", "bottleneck.weight")),
    taken="names with the prefix 'base.'",
    unused=frozenset({"classifier.weight", "bottleneck.weight"}),
    stage=CLASSIFIER,
  ),
  "mask token": Case(
    vit() | {"mask_token": np.ones((1, 1, 128), np.float32)}, unused=frozenset({"mask_token"})
  ),
  "neck": Case(
    under("backbone.") | NECK,
    error="expected names of the timm family, found neck.conv.weight; "
    "to read only the encoder, set --encoder_only",
  ),
  "neck, encoder only": Case(
    under("backbone.") | NECK,
    ("--encoder_only",),
    taken="names with the prefix 'backbone.'",
    unused=frozenset(NECK),
  ),
  "decoder, encoder only": Case(
    vit() | DECODER,
    ("--encoder_only",),
    unused=frozenset(DECODER),
    stage="pre-trained, without decoder",
  ),
  "adapters": Case(
    vit() | named("", ("blocks.0.adapter.weight",)),
    ("--encoder_only",),
    error="expected names of the timm family, found blocks.0.adapter.weight",
  ),
  # Several encoders
  "DINO": Case(
    {"student": under("module.backbone.", other()), "teacher": under("backbone.") | DINO_HEAD, "epoch": 9},
    taken="entry 'teacher', names with the prefix 'backbone.' "
    "(the code of DINO and iBOT reads 'teacher', not 'student')",
    unused=frozenset(DINO_HEAD),
  ),
  "DINO, student": Case(
    {"student": under("module.backbone."), "teacher": under("backbone.", other()), "epoch": 9},
    ("--key=student",),
    taken="entry 'student', names with the prefix 'module.backbone.'",
  ),
  "MoCo v3": Case(
    {"state_dict": MOCO, "arch": "vit_base", "epoch": 300},
    taken="entry 'state_dict', names with the prefix 'module.base_encoder.' "
    "(the code of MoCo v3 reads 'base_encoder', not 'momentum_encoder')",
    unused=frozenset(name for name in MOCO if "base_encoder" not in name or ".head." in name),
  ),
  "MoCo v3, prefix": Case(
    {"state_dict": under("module.base_encoder.", other()) | under("module.momentum_encoder.")},
    ("--prefix=module.momentum_encoder.",),
    taken="entry 'state_dict', names with the prefix 'module.momentum_encoder.'",
    unused=frozenset(under("module.base_encoder.")),
  ),
  "DINOv2": Case(
    {"model": DINOV2, "iteration": 10},
    taken="entry 'model', names with the prefix 'teacher.backbone.' "
    "(the code of DINO and iBOT reads 'teacher', not 'student')",
    unused=frozenset(name for name in DINOV2 if not name.startswith("teacher.backbone.")),
  ),
  "timm with an average": Case(
    {"state_dict": vit(), "state_dict_ema": other(), "arch": "vit_base_patch16_224"},
    error="holds 2 encoders; choose one of them: --key=state_dict | --key=state_dict_ema",
  ),
  "timm with an average, key": Case(
    {"state_dict": other(), "state_dict_ema": vit(), "arch": "vit_base_patch16_224"},
    ("--key=state_dict_ema",),
    taken="entry 'state_dict_ema'",
  ),
  "DeiT with an average": Case(
    {"model": vit(), "model_ema": other()}, error="choose one of them: --key=model | --key=model_ema"
  ),
  "average in a callback": Case(
    {"state_dict": vit(), "callbacks": {"EMA": {"weights": other()}}},
    error="choose one of them: --key=state_dict | --key=callbacks.EMA.weights",
  ),
  "average in a callback, key": Case(
    {"state_dict": other(), "callbacks": {"EMA": {"weights": vit()}}},
    ("--key=callbacks.EMA.weights",),
    taken="entry 'callbacks.EMA.weights'",
  ),
  "two prefixes": Case(
    under("online.") | under("target.", other()),
    error="holds 2 encoders; choose one of them: --prefix=online. | --prefix=target.",
  ),
  "two entries with two prefixes": Case(
    {"model": under("online.") | under("target.", other()), "ema": other()},
    error="--key=model --prefix=online. | --key=model --prefix=target. | --key=ema",
  ),
  "two prefixes, prefix": Case(
    under("online.", other()) | under("target."),
    ("--prefix=target.",),
    taken="names with the prefix 'target.'",
    unused=frozenset(under("online.")),
  ),
  "no such entry": Case(
    {"model": vit()},
    ("--key=teacher",),
    error="no entry 'teacher' with tensors; entries with tensors are model",
  ),
  "no entries": Case(
    vit(), ("--key=model",), error="no entry 'model' with tensors; it has no entries, only tensors"
  ),
  "no such prefix": Case(
    vit(), ("--prefix=teacher.",), error="no name begins with 'teacher.'; names are cls_token"
  ),
  "a name twice": Case(
    vit() | under("_orig_mod."), error="cls_token and _orig_mod.cls_token are the same tensor"
  ),
  # Objects next to the weights
  "optimizer": entry(
    "model", optimizer={"state": {0: {"exp_avg": np.ones((128,), np.float32)}}, "param_groups": []}
  ),
  "optimizer by names": entry("model", optimizer={"exp_avg": other()}),
  "paths and times": dataclasses.replace(
    entry(
      "model",
      out=pickled(pathlib.PurePosixPath("runs")),
      now=pickled(datetime.datetime(2023, 10, 31)),
      last=pickled(collections.deque([1.0, 2.0])),
      share=pickled(fractions.Fraction(1, 2)),
      args=pickled(types.SimpleNamespace(lr=0.1)),
    ),
    objects=(
      "pathlib.PurePosixPath",
      "datetime.datetime",
      "collections.deque",
      "fractions.Fraction",
      "types.SimpleNamespace",
    ),
  ),
  "functions": dataclasses.replace(
    entry("model", act=pickled(np.mean), fn=pickled(json.dumps)), objects=("numpy.mean", "json.dumps")
  ),
  "counters": dataclasses.replace(
    entry("model", seen=pickled(collections.Counter("aab")), groups=pickled(collections.defaultdict(list))),
    objects=("__builtin__.list",),  # the factory of the defaultdict
  ),
  "numbers in the state dict": Case(vit() | {"epoch": 3, "name": "vit"}),
  "a pickled module": Case(
    {"model": torch_bytes.Raw(b"ctimm.models.vision_transformer\nVisionTransformer\n)\x81}b"), "epoch": 3},
    error="entry 'model' is an object of the class timm.models.vision_transformer.VisionTransformer, not a "
    "state dict",
  ),
  "a sparse head": Case(
    vit() | {"head.weight": SPARSE},
    unused=frozenset({"head.weight"}),
    objects=("torch._utils._rebuild_sparse_tensor",),
    stage=CLASSIFIER,
  ),
  "a sparse bias": Case(
    vit() | {"norm.bias": SPARSE},
    error="tensor norm.bias is a sparse tensor (torch._utils._rebuild_sparse_tensor): save it as a dense "
    "tensor with values",
  ),
  "no tensors": Case(
    {"epoch": 3, "args": {"lr": 0.1}}, error="found no tensors in its entries (epoch, args)"
  ),
}


@pytest.fixture(scope="module")
def features():
  """Returns a function (path, options) -> features of the encoder that `hap_jax.load` returns."""
  compiled = {}

  def compute(path, **options):
    model, variables, _ = hap_jax.load(path, **options)
    return np.asarray(compiled.setdefault(model, jax.jit(model.apply))(variables, IMAGES))

  return compute


@pytest.fixture(scope="module")
def wanted(features, tmp_path_factory):
  path = tmp_path_factory.mktemp("wanted") / "bare.pth"
  path.write_bytes(torch_bytes.zip_file(vit()))
  return features(path)


def arguments(options):
  """Returns the options of a command as arguments of `hap_jax.load`."""
  words = (option.removeprefix("--").partition("=") for option in options)
  return {name: value or True for name, _, value in words}


def test_there_are_at_least_forty_cases():
  assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_a_wrapped_vit_has_the_same_features_or_is_refused(tmp_path, capsys, features, wanted, name):
  case, path = CASES[name], tmp_path / "weights.pth"
  path.write_bytes(torch_bytes.zip_file(case.content))
  status = main(["describe", str(path), "--json", *case.options])
  printed = capsys.readouterr()
  if case.error:
    assert status == 1
    assert printed.err.count("\n") == 1
    assert f"error: {path}: " in printed.err
    assert case.error in printed.err
    with pytest.raises(ValueError, match=r"weights\.pth: "):
      features(path, **arguments(case.options))
    return
  assert status == 0, printed.err
  facts = json.loads(printed.out)
  family = "mae" if "decoder" in name else "timm"
  assert (facts["family"], facts["task"], facts["stage"]) == (family, "pretrain", case.stage)
  assert (facts["taken"], set(facts["unused"]), facts["objects"]) == (
    case.taken,
    case.unused,
    [*case.objects],
  )
  assert (facts["model"]["grid"], facts["heads"], facts["model"]["decoder"]) == ([3, 3], {}, None)
  assert facts["made_from"][0]["kind"] == ("unknown" if family == "timm" else "non-commercial")
  np.testing.assert_array_equal(features(path, **arguments(case.options)), wanted)

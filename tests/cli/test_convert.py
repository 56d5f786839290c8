"""`hap convert`: a bad file or destination is a one-line error with exit status 1 and leaves no files."""

import json
import pickle

import numpy as np
import pytest

from hap_jax.cli.__main__ import main
from hap_jax.convert import families, read, run, write
from hap_jax.io import safetensors_file
from hap_jax.train import initial
from tests.convert.reference_state import encoder_state, family_state, full_state, leaves
from tests.io import torch_bytes
from tests.io.full_disk import files_end_at

OPTIONS = ["--source_grid=4x2", "--num_heads=2", "--decoder_heads=2", "--no_real_class"]


@pytest.fixture
def good(tmp_path):
  """Returns the path of a small HAP checkpoint."""
  path = tmp_path / "hap.pth"
  path.write_bytes(torch_bytes.zip_file({"model": family_state("hap"), "arch": "pose_mae_vit_base_patch16"}))
  return path


def convert(source, out, *options):
  return main(["convert", str(source), f"--out={out}", *OPTIONS, *options])


def names_in(folder):
  return sorted(path.name for path in folder.iterdir())


# Valid conversions


def test_convert_prints_the_facts_of_its_report(good, tmp_path, capsys):
  assert convert(good, tmp_path / "out.safetensors", "--to=timm", "--grid=6x3") == 0
  printed = capsys.readouterr().out
  report = json.loads((tmp_path / run.REPORT).read_text())["out.safetensors"]
  assert "grid 6x3 (resized from 4x2), 2 heads" in printed
  assert "resized: encoder/pos_embed 4x2 -> 6x3, decoder/pos_embed 4x2 -> 6x3" in printed
  assert f"licence: {report['licence']}" in printed
  assert f"from hap.pth (hap, sha256 {report['lineage'][0]['sha256'][:12]})" in printed
  assert report["proof"]["real_class"] == "not asked for"
  assert report["parameters"] == sum(
    array.size for array in leaves(read.read(tmp_path / "out.safetensors").params).values()
  )
  assert names_in(tmp_path) == [run.REPORT, "hap.pth", "out.safetensors"]


@pytest.mark.soak
def test_a_whole_vit_b_is_converted_bit_for_bit(tmp_path):
  path, own = tmp_path / "b.safetensors", tmp_path / "own"
  state = family_state("timm", grid=(16, 8), width=768, depth=12, patch=16)
  for array in state.values():
    array *= np.float32(0.1)  # with larger weights, each softmax would be 0 or 1 and would hide errors
  safetensors_file.save(path, state, {})
  assert main(["convert", str(path), f"--out={own}", "--from=timm", "--source_grid=16x8"]) == 0
  weights = read.read(own)
  assert (weights.depth, weights.num_heads) == (12, 12)
  back, _ = write.to_state(weights, families.load("timm"))
  assert back.keys() == state.keys()
  for name, array in state.items():
    np.testing.assert_array_equal(back[name], array)


# Bad files


def changed(name, array):
  return {"model": full_state() | {name: array}}


BAD_FILES = {
  "truncated.pth": (lambda data: torch_bytes.zip_file({"model": full_state()})[:-999], "truncated"),
  "truncated_legacy.pth": (lambda data: torch_bytes.legacy_file({"model": full_state()})[:-999], "truncated"),
  "truncated.safetensors": (lambda data: data[:-999], "truncated, corrupt or no safetensors file"),
  "picture.pth": (lambda data: b"\xff\xd8\xff\xe0" + bytes(99), "this is a JPEG picture"),
  "page.safetensors": (lambda data: b"<!DOCTYPE html><html>", "this is an HTML page"),
  "zeros.pth": (lambda data: bytes(99), "neither a zip nor a legacy PyTorch file"),
  "empty.pth": (lambda data: b"", "the file is empty"),
  "resnet.pth": (lambda data: torch_bytes.zip_file({"conv1.weight": np.ones(3)}), "of no known family"),
  "nan.pth": (
    lambda data: torch_bytes.zip_file(changed("norm.bias", np.full(16, np.nan))),
    "16 values that are NaN",
  ),
  "shape.pth": (
    lambda data: torch_bytes.zip_file(changed("norm.bias", np.ones(7))),
    r"norm.bias has shape (7,), expected (16)",
  ),
  "name.pth": (
    lambda data: torch_bytes.zip_file(changed("norm.gamma", np.ones(7))),
    "expected names of the hap family, found norm.gamma",
  ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_a_one_line_error_and_leaves_no_output(tmp_path, capsys, name):
  spoil, message = BAD_FILES[name]
  safetensors_file.save(tmp_path / name, full_state(), {})
  (tmp_path / name).write_bytes(spoil((tmp_path / name).read_bytes()))
  # Both kinds of destination are tested: a folder and a single file.
  for to, out in (("orbax", "out"), ("hap", "out.pth")):
    assert convert(tmp_path / name, tmp_path / out, f"--to={to}") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(f"error: {tmp_path / name}: ")
    assert message in printed.err
  assert main(["describe", str(tmp_path / name)]) == 1
  assert message in capsys.readouterr().err
  with pytest.raises(ValueError, match=name.replace(".", r"\.")):
    initial.read(tmp_path / name)
  assert names_in(tmp_path) == [name]


@pytest.mark.parametrize(
  ("family", "message"),
  [
    ("timm", "expected names of the timm family, found decoder_"),
    ("hf-vit", "expected names of the hf-vit family"),
    ("reid-lem", "expected names of"),
  ],
)
def test_a_wrong_family_is_an_error(good, tmp_path, capsys, family, message):
  assert convert(good, tmp_path / "out", f"--from={family}") == 1
  assert message in capsys.readouterr().err
  assert names_in(tmp_path) == ["hap.pth"]


class Opens:
  """An object whose pickle creates the file `proof` when Python's own pickle loads it."""

  def __init__(self, proof):
    self.proof = proof

  def __reduce__(self):
    return open, (str(self.proof), "w")


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_all_readers_refuse_a_hostile_file_and_do_not_run_its_code(tmp_path, capsys, form):
  proof, path = tmp_path / "ran", tmp_path / "hostile.pth"
  payload = pickle.dumps(Opens(proof), 2)
  model = torch_bytes.Raw(payload[2:-1])  # without the first opcode and the last one, to embed it in a pickle
  writers = {"zip": torch_bytes.zip_file, "legacy": torch_bytes.legacy_file, "bare": lambda _: payload}
  path.write_bytes(writers[form]({"model": model}))
  for words in (
    ["convert", str(path), f"--out={tmp_path / 'out'}"],
    ["describe", str(path)],
  ):
    assert main(words) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "hostile.pth" in printed
    assert "open" in printed
  with pytest.raises(ValueError, match=r"hostile\.pth.*open"):
    initial.read(path)
  assert names_in(tmp_path) == ["hostile.pth"]
  pickle.loads(payload).close()  # proves that the payload works, so the test above can fail
  assert proof.exists()


@pytest.mark.parametrize("make", [torch_bytes.zip_file, torch_bytes.legacy_file])
def test_a_hostile_object_next_to_the_weights_is_named_and_does_not_run(tmp_path, capsys, make):
  proof, path = tmp_path / "ran", tmp_path / "hostile.pth"
  payload = pickle.dumps(Opens(proof), 2)
  path.write_bytes(make({"model": encoder_state(grid=(3, 3)), "args": torch_bytes.Raw(payload[2:-1])}))
  assert main(["describe", str(path)]) == 0
  assert "not read    objects of io.open" in capsys.readouterr().out
  assert main(["convert", str(path), f"--out={tmp_path / 'out'}", "--num_heads=2"]) == 0
  assert not proof.exists()


@pytest.mark.parametrize(
  ("option", "message"),
  [
    ("--num_heads=0", "hap.pth has width 16, expected a number from 1 that divides the width"),
    ("--num_heads=-2", "hap.pth has width 16, expected a number from 1"),
    ("--num_heads=3", "hap.pth has width 16, expected a number from 1"),
    ("--decoder_heads=0", "the decoder of hap.pth has width 16, expected a number from 1"),
    ("--decoder_heads=-2", "the decoder of hap.pth has width 16, expected a number from 1"),
  ],
)
def test_an_impossible_number_of_heads_is_an_error(good, tmp_path, capsys, option, message):
  assert convert(good, tmp_path / "out", option) == 1
  assert f"error: {option}: {message}" in capsys.readouterr().err
  assert names_in(tmp_path) == ["hap.pth"]


# Destinations


def test_nothing_is_overwritten_without_force(good, tmp_path, capsys):
  assert convert(good, tmp_path / "out.pth", "--to=hap") == 0
  before = (tmp_path / "out.pth").read_bytes(), (tmp_path / run.REPORT).read_text()
  assert convert(good, tmp_path / "out.pth", "--to=timm") == 1
  assert f"--out={tmp_path / 'out.pth'} exists; give another path, or --force" in capsys.readouterr().err
  assert ((tmp_path / "out.pth").read_bytes(), (tmp_path / run.REPORT).read_text()) == before
  assert convert(good, tmp_path / "out.pth", "--to=timm", "--force") == 0
  assert read.read(tmp_path / "out.pth").family == "timm"
  assert names_in(tmp_path) == [run.REPORT, "hap.pth", "out.pth"]


def test_force_replaces_only_folders_that_a_conversion_made(good, tmp_path, capsys):
  out = tmp_path / "out"
  for to in ("hf-vit", "orbax"):
    assert convert(good, out, f"--to={to}", "--force") == 0
  assert read.read(out).family == "hap_jax"
  assert names_in(tmp_path) == ["hap.pth", "out"]
  # A folder without a conversion report may belong to the user, so even --force must not delete it.
  (tmp_path / "photos").mkdir()
  (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
  assert convert(good, tmp_path / "photos", "--force") == 1
  assert "is not the result of a conversion" in capsys.readouterr().err
  assert names_in(tmp_path / "photos") == ["one.jpg"]


def test_force_does_not_replace_a_folder_that_only_has_converted_files(good, tmp_path, capsys):
  folder = tmp_path / "files"
  folder.mkdir()
  (folder / "notes.txt").write_text("mine")
  assert convert(good, folder / "out.safetensors", "--to=timm") == 0
  before = names_in(folder)
  assert run.REPORT in before
  assert convert(good, folder, "--force") == 1
  assert "is not the result of a conversion" in capsys.readouterr().err
  assert names_in(folder) == before


def test_force_does_not_remove_a_folder_with_the_source_in_it(good, tmp_path, capsys):
  out = tmp_path / "out"
  assert convert(good, out, "--to=hf-vit") == 0
  good.rename(out / "hap.pth")
  before = names_in(out)
  for source, message in ((out / "hap.pth", "holds the source"), (out, "is the source itself")):
    assert convert(source, out, "--force") == 1
    assert message in capsys.readouterr().err
  # The destination is a file of the source folder.
  assert convert(out, out / "model.safetensors", "--to=timm", "--force") == 1
  assert "is the source itself" in capsys.readouterr().err
  assert names_in(out) == before


@pytest.mark.parametrize(
  ("out", "options", "message"),
  [
    ("no/such/folder/out", (), "there is no folder"),
    ("hap.pth", ("--to=hap", "--force"), "is the source itself"),
    ("out.pth", (), "--to=orbax makes a folder"),
    ("out", ("--to=hap",), "--to=hap makes a file"),
    ("out", ("--to=hf-vitmae",), "ViTMAE of transformers supports only square grids"),
  ],
)
def test_a_wrong_destination_is_an_error_before_the_first_write(
  good, tmp_path, capsys, out, options, message
):
  before = good.read_bytes()
  assert convert(good, tmp_path / out, *options) == 1
  assert message in capsys.readouterr().err
  assert names_in(tmp_path) == ["hap.pth"]
  assert good.read_bytes() == before


def test_a_foreign_report_file_is_not_overwritten(good, tmp_path, capsys):
  (tmp_path / run.REPORT).write_text('{"mine": 1}')
  assert convert(good, tmp_path / "out.pth", "--to=hap", "--force") == 1
  assert "expected a report of conversions, found other content" in capsys.readouterr().err
  assert (tmp_path / run.REPORT).read_text() == '{"mine": 1}'
  assert names_in(tmp_path) == [run.REPORT, "hap.pth"]


@pytest.mark.skipif(not run.pathlib.Path("/proc/self").is_dir(), reason="needs a folder that takes no files")
@pytest.mark.parametrize(
  ("out", "to"), [("x.pth", "hap"), ("x.safetensors", "hap"), ("x", "hf-vit"), ("x", "orbax")]
)
def test_a_read_only_folder_is_a_one_line_error(good, capsys, out, to):
  assert convert(good, f"/proc/self/{out}", f"--to={to}") == 1
  printed = capsys.readouterr().err
  assert printed.count("\n") == 1
  assert ".x." in printed


@pytest.mark.parametrize(
  ("out", "to"), [("out.pth", "hap"), ("out.safetensors", "hap"), ("out", "hf-vit"), ("out", "orbax")]
)
def test_a_full_disk_is_a_one_line_error_and_leaves_no_files(good, tmp_path, capsys, out, to):
  # The limit on the file size acts like a full disk: the write fails in the middle.
  with files_end_at(20_000):
    status = convert(good, tmp_path / out, f"--to={to}")
  assert status == 1
  printed = capsys.readouterr().err
  assert printed.startswith("error: ")
  assert printed.count("\n") == 1
  assert names_in(tmp_path) == ["hap.pth"]

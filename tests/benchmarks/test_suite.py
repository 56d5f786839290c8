"""The suite of benchmarks: its commands are valid, and its file records failed commands."""

import importlib.util
import json

import pytest

from benchmarks import end_to_end, pretrain_step, suite, workload
from hap_jax.cli import __main__ as cli


def test_commands_name_modules_that_exist():
  commands = suite.size_commands("B") + suite.lever_commands() + suite.rival_commands()
  for name, *_ in commands + suite.loader_commands("people"):
    assert importlib.util.find_spec(name) is not None


def test_commands_parse_and_their_configurations_are_valid():
  commands = suite.size_commands("S", "B", "L", "H") + suite.lever_commands()
  for _, *words in commands:
    args = pretrain_step.parse_args(words)
    config = pretrain_step.make_config(args)
    for lever in args.levers:
      pretrain_step.switched(config, lever)
  assert ["benchmarks.pretrain_step", "--size=B", "--batch=1024"] in commands


@pytest.mark.soak
def test_people_are_packed_and_trained_on_with_the_loader(tmp_path, plain_words):
  (_, *pack), *train = suite.loader_commands(tmp_path / "people", num_pictures=8)
  assert cli.main(pack) == 0
  for name, *words in train:
    assert name == "benchmarks.end_to_end"
    config = end_to_end.make_config(
      end_to_end.parse_args([*words, *plain_words, "--batch=8", "--set=data.workers=0"])
    )
  mesh = workload.one_device()  # compiles in half the time of eight devices
  # Only the configuration of the last command is run.
  line = end_to_end.measure_share(config, mesh, warmup=1, repeats=1, steps=1)
  assert (line["source"], line["augment"], line["rounds"]) == ("tfds", "device", 1)
  assert line["share"] > 0


def test_lines_are_added_and_a_failed_command_is_named(tmp_path):
  out = tmp_path / "out.jsonl"
  sizes = ["--queries=4", "--gallery=8", "--identities=2", "--width=4"]
  assert suite.run(["benchmarks.retrieval", *sizes], out)
  assert suite.run(["hap_jax.cli", "--help"], out)  # not a benchmark, so it adds no line
  assert not suite.run(["benchmarks.retrieval", "--no_such_option"], out)
  line, failed = map(json.loads, out.read_text().splitlines())
  assert (line["bench"], line["gallery"]) == ("retrieval", 8)
  assert (failed["bench"], failed["failed"]) == ("retrieval", "benchmarks.retrieval --no_such_option")
  assert "unrecognized arguments" in failed["error"]


def test_an_existing_file_is_not_changed(tmp_path):
  old = tmp_path / "old.jsonl"
  old.write_text("kept")
  with pytest.raises(SystemExit, match="exists"):
    suite.main([f"--out={old}"])
  assert old.read_text() == "kept"

"""`hap plan` says what a run needs on a machine that is not there, and explains wrong options in one line."""

import json

import pytest

from hap_jax.cli import __main__ as cli
from hap_jax.cli import plan as command
from hap_jax.plan import compile as compiling
from hap_jax.plan import compilers


def run(capsys, *words):
  """Returns (exit code, stdout, stderr) of `hap plan`."""
  code = cli.main(["plan", *words])
  return code, *capsys.readouterr()


def test_a_plan_without_a_compiler_has_all_that_follows_from_the_shapes(capsys):
  words = ["--config=pretrain_demo", "--device_memory_gb=8", "--devices=2", "--images_per_s=50", "--json"]
  code, out, err = run(capsys, *words, "--set=model.scan=True", "--set=batch_size=64")
  assert (code, err) == (0, "")
  plan = json.loads(out)
  needs = plan["needs"]
  parameters = needs["parameters"]
  assert needs["mesh"] == {"data": 2, "fsdp": 1, "tensor": 1}
  assert needs["device_bytes"]["parameters"] == 4 * parameters
  assert needs["device_bytes"]["gradients"] == 4 * needs["trained"]
  # The moments of AdamW, and its counter. Position tables have none.
  assert needs["device_bytes"]["moments"] == 8 * needs["trained"] + 4
  assert needs["checkpoint_bytes"] == 4 * parameters + 8 * needs["trained"] + 8
  assert needs["device_bytes"]["batch"] >= 32 * 64 * 32 * 3
  assert plan["hours"] == pytest.approx(2000 * 64 / 50 / 3600)  # config.total_steps=2000


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--topology=v5e:3x3"], "--topology=v5e:3x3: expected KIND:SIZE, such as v5e:4x4, of one of v5e: 1x1, "),
    (["--topology=v5e:2x2", "--devices=4"], "--devices=4: leave it out, because --topology says it"),
    (["--device=h100", "--devices=12"], "--devices=12: expected at most 8, or a multiple of 8"),
    (["--device=h100", "--set=model.depth=3"], "--set model.depth=3"),
    (["--device=h100", "--no_compile", "--exact"], "--exact and --full need a compiler"),
    (["--device=h100", "--no_compile", "--set=batch_size=0"], "config.batch_size=0"),
  ],
)
def test_wrong_options_are_one_line_that_names_them(words, message, capsys):
  code, out, err = run(capsys, "--config=pretrain_b16", *words)
  assert (code, out, err.count("\n")) == (1, "", 1)
  assert message in err


@pytest.mark.parametrize(
  "option", ["--devices=0", "--records=-1", "--images_per_s=nan", "--memory_fraction=2"]
)
def test_a_number_out_of_range_is_an_error_of_the_command_line(option, capsys):
  with pytest.raises(SystemExit):
    cli.main(["plan", "--config=pretrain_b16", "--device=h100", option])
  assert option.partition("=")[0] in capsys.readouterr().err


def test_without_a_compiler_the_command_that_installs_it_is_printed(capsys, monkeypatch):
  needs = {
    "parameters": 10,
    "trained": 10,
    "checkpoint_bytes": 120,
    "flops": 1e9,
    "lines": ["a step"],
    "sizes": {},
    "mesh": {"data": 4, "fsdp": 1, "tensor": 1},
    "device_bytes": {"parameters": 40},
  }
  monkeypatch.setattr(compilers, "find", lambda platform: None)
  monkeypatch.setattr(compiling, "analyse", lambda *_: needs)
  code, out, err = run(capsys, "--config=pretrain_b16", "--topology=v5e:2x2")
  assert code == 0
  assert err.startswith("plan: no compiler for this machine is installed, so nothing is compiled: ")
  assert "pip install --no-deps" in err
  assert "15.75 GiB of 16.00 GiB on each device can be used" in out


def test_a_compiler_that_ends_without_a_result_is_one_line(monkeypatch):
  monkeypatch.setattr(compiling, "_MODULE", "tests.plan.ending_child")
  config = command.read_config("pretrain_demo", [])
  from hap_jax.plan import machines
  from hap_jax.train.outline import NOTHING_KNOWN

  with pytest.raises(ValueError, match=r"for 1 x H100 ended with status 3: the last words of a compiler$"):
    compiling.analyse(config, NOTHING_KNOWN, machines.h100(1), "none")

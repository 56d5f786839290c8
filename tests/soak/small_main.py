"""The training command with a model of about 10,000 parameters: `python -m tests.soak.small_main FLAGS`."""

from hap_jax.train import preemption

if __name__ == "__main__":
  preemption.install()  # before the other imports, as in the training command

  from absl import app

  from hap_jax import main
  from hap_jax.models import vit
  from tests.recorded import record

  record.shrink(vit.VARIANTS)
  app.run(main.main, flags_parser=main._parse)

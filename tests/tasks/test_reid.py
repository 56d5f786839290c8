"""The ReID task without training."""

import numpy as np
import pytest

from hap_jax.tasks import reid


@pytest.mark.parametrize("pids", [[1, 2**31], [-(2**31) - 1, 0], np.array([1, 2**63], np.uint64)])
def test_loss_refuses_person_numbers_that_do_not_fit_the_device(pids):
  with pytest.raises(ValueError, match=r"expected int32 numbers: renumber .*config\.data\.source"):
    reid.make_loss(pids, 1.0, 1.0)
  reid.make_loss([0, 2**31 - 1], 1.0, 1.0)

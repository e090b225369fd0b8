"""How gamma is carried over to stage final."""

import pytest

from zslkeras.evaluation import calibration


def test_a_gamma_is_carried_over_by_how_the_closed_form_does_on_other_folds():
    assert calibration.carried(3.0, 0.2, [0.1, 0.3]) == pytest.approx(3.0)
    assert calibration.carried(3.0, 0.4, [0.2, 0.3]) == pytest.approx(3.0 * 0.3 / 0.4)
    assert calibration.carried(-1.0, 0.4, [0.2, 0.3]) == pytest.approx(-0.75)
    # No factor where the closed form has none to give.
    assert calibration.carried(3.0, 0.0, [0.2]) == calibration.carried(3.0, 0.1, [-0.5]) == 3.0

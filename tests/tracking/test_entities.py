import json
import math

import pytest

from visionsweep.tracking.entities import MAX_PARAM, finite_or_nan, param_value, safe_key

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:mlflow")

ODD_KEYS = ["a=b", "a+b", "layers[0]", "x@y", "a,b", "a//b", "/a", "a/", "..", "a/../b", ".", ""]
ODD_KEYS += ["x" * 300, "a\nb"]


@pytest.mark.parametrize("key", ["val/f1_macro", "optim.lr", "val/f1_class/Äpfel rot", "a-b:c"])
def test_a_legal_name_is_kept(key):
    assert safe_key(key) == key


def test_odd_names_become_legal_and_stay_distinct():
    from mlflow.utils.validation import _validate_metric_name, _validate_param

    names = [safe_key(key) for key in ODD_KEYS]
    for name in names:
        _validate_metric_name(name)
        _validate_param(name, "value")
    assert len(set(names)) == len(ODD_KEYS)


def test_parameters_read_like_the_command_line():
    texts = {"focal": "focal", None: "null", True: "true", 1e-3: "0.001", (1, "ä"): '[1, "ä"]'}
    assert {value: param_value(value) for value in texts} == texts
    assert len(param_value("x" * 6001)) == MAX_PARAM
    assert json.loads(param_value({"a": [1]})) == {"a": [1]}


def test_infinities_cannot_win_a_sort():
    assert finite_or_nan(0.1) == 0.1
    for value in ("inf", "-inf", "nan"):
        assert math.isnan(finite_or_nan(value))

"""What `import zslkeras` gives, before and after TensorFlow is there."""

import pytest

import zslkeras
from zslkeras import benchmarks, names
from zslkeras.models.base import ZeroShotModel


def test_every_public_name_is_there():
    public = set(zslkeras.__all__)
    assert {"InputError", "MODELS", "load_benchmark", "__version__", "ASPN", "DRMNFromPictures"} <= public
    for name in public:
        assert getattr(zslkeras, name) is not None and name in dir(zslkeras)
    assert zslkeras.load_benchmark is benchmarks.load
    with pytest.raises(AttributeError, match="module 'zslkeras' has no attribute 'nothing'"):
        zslkeras.nothing  # noqa: B018


def test_the_models_are_a_dictionary_that_takes_others(monkeypatch):
    assert list(zslkeras.MODELS) == sorted(names.MODELS) and len(zslkeras.MODELS) == len(names.MODELS)
    for name, model in zslkeras.MODELS.items():
        assert issubclass(model, ZeroShotModel) and model is getattr(zslkeras, names.MODELS[name][1])
    assert "mine" not in zslkeras.MODELS
    with monkeypatch.context() as patch:
        patch.setitem(zslkeras.MODELS, "mine", ZeroShotModel)
        assert zslkeras.MODELS["mine"] is ZeroShotModel and "mine" in list(zslkeras.MODELS)
    with pytest.raises(KeyError):
        zslkeras.MODELS["mine"]

"""OpenELM in Rust, for Python.

>>> import openelm
>>> model = openelm.load()  # the small model that comes along; or a path: any format
>>> for piece in openelm.stream_generate(model, "Once upon a time", max_tokens=20):
...     print(piece.text, end="")

Texts that go on are sessions::

    session = model.session()
    first = "".join(piece.text for piece in session.generate("Once upon a time", max_tokens=20))
    more = "".join(piece.text for piece in session.generate("", max_tokens=20))

Models are tuned and measured as by the command::

    tuned = openelm.tune("OpenELM-270M", "mine.jsonl", output="runs/mine")
    scores = openelm.evaluate("OpenELM-270M", "arc_easy", data="datasets", adapter=tuned.checkpoint)["results"]

A script written for transformers takes its two imports from :mod:`openelm.transformers`.
"""

from ._openelm import (
    Generation,
    Model,
    Piece,
    Session,
    Tokenizer,
    available_memory,
    convert,
    footprint,
    verify_bundle,
    version,
)
from .errors import BusyError, InputError, ModelFileError, OpenElmError, OutOfMemoryError
from .evaluation import evaluate
from .training import Tuned, tune, tune_recipe

__version__ = version()
__all__ = [
    "BusyError",
    "Generation",
    "InputError",
    "Model",
    "ModelFileError",
    "OpenElmError",
    "OutOfMemoryError",
    "Piece",
    "Session",
    "Tokenizer",
    "Tuned",
    "available_memory",
    "convert",
    "evaluate",
    "footprint",
    "generate",
    "load",
    "stream_generate",
    "tune",
    "tune_recipe",
    "verify_bundle",
]


def load(path="builtin", **options):
    """Opens the model at ``path``: a folder of Hugging Face, MLX or CoreNet, a bundle, or a ``.gguf``, ``.pt`` or ``.safetensors`` file.

    Without a path it is the small model that comes along. Weights are mapped, not read. The options are those of
    :class:`Model`: ``threads``, ``cache``, ``context``, ``memory``, ``tokenizer``.
    """
    return Model(path, **options)


def stream_generate(model, prompt, *, adapter=None, **options):
    """Writes on behind ``prompt``, text or token ids: an iterator over pieces of text. Options are those of
    :meth:`Session.generate`."""
    return model.session(adapter).generate(prompt, **options)


def generate(model, prompt, *, adapter=None, **options):
    """The text behind ``prompt``, all at once."""
    return "".join(piece.text for piece in stream_generate(model, prompt, adapter=adapter, **options))

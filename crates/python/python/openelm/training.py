"""Tuning: a model goes on learning, from answers or from preferences."""

import json
import os
import pathlib
from typing import Any, Callable, NamedTuple, Optional, Union

from . import _openelm

_Path = Union[str, "os.PathLike[str]"]
_OnStep = Callable[[dict[str, Any]], object]


class Tuned(NamedTuple):
    """What a run came to."""

    checkpoint: pathlib.Path
    """The newest checkpoint: an adapter as PEFT has it, or a model."""
    recipe: pathlib.Path
    """The recipe that was followed, with every default written out; :func:`tune_recipe` takes it."""
    log: list[dict[str, Any]]
    """The entries of ``log.jsonl``, from the beginning of the run: updates with ``loss``, measurements with ``validation_loss``."""


def tune(
    model: Union["_openelm.Model", _Path],
    data: Union[str, "os.PathLike[str]", list[_Path]],
    *,
    output: _Path = "tuned",
    method: str = "lora",
    dpo: bool = False,
    steps: Optional[int] = None,
    epochs: Optional[float] = None,
    rank: Optional[int] = None,
    batch_size: Optional[int] = None,
    learning_rate: Optional[float] = None,
    changes: Optional[dict[str, Any]] = None,
    tokenizer: Optional[_Path] = None,
    threads: int = 0,
    on_step: Optional[_OnStep] = None,
) -> Tuned:
    """Tunes ``model``, an open one or the path of one, on the examples in ``data``; the same call again goes on where it stopped.

    >>> tuned = openelm.tune("OpenELM-270M", "mine.jsonl", output="runs/mine", steps=100)
    >>> openelm.generate(openelm.load("OpenELM-270M"), "...", adapter=tuned.checkpoint)

    ``data`` is a file, a pattern or a folder, or a list of them: JSONL or JSON lists of ``messages``, ``instruction`` and ``output``,
    ``prompt`` and ``completion``, or ``text``; with ``dpo`` of ``prompt``, ``chosen`` and ``rejected``. ``method`` is ``"lora"``,
    ``"dora"`` or ``"full"``. What is not said is as ``openelm tune`` has it: one epoch, rank 16, a twentieth of the examples held
    out. ``changes`` are of values of the recipe that are numbers, texts, truth values or lists of them: ``{"train.accumulation": 2}``.
    The recipe is written into ``output``, beside the log and the checkpoints.

    ``on_step`` is called with each update's entry of the log: ``step``, ``tokens``, ``epoch``, ``loss``, ``lr``, ``gradient_norm``,
    ``tokens_per_second``. Other Python threads run meanwhile. Ctrl-C, or an exception of ``on_step``, finishes the update under way,
    saves, and is raised then. What the command would print goes to the logger ``openelm``.

    Raises :class:`openelm.OpenElmError`, with the sentence of the command.
    """
    paths = data if isinstance(data, list) else [data]
    named = {
        "train.steps": steps,
        "train.epochs": epochs,
        "adapter.rank": rank,
        "train.batch_size": batch_size,
        "schedule.max_lr": learning_rate,
    }
    said = {key: value for key, value in named.items() if value is not None}
    folder, checkpoint = _openelm.tune(
        model,
        [os.fspath(path) for path in paths],
        output=output,
        method=method,
        pairs=dpo,
        tokenizer=tokenizer,
        changes=_sets({**said, **(changes or {})}),
        threads=threads,
        on_step=_decoding(on_step),
    )
    return _tuned(folder, checkpoint)


def tune_recipe(
    recipe: _Path,
    *,
    changes: Optional[dict[str, Any]] = None,
    threads: int = 0,
    on_step: Optional[_OnStep] = None,
) -> Tuned:
    """Tunes by the recipe in the file ``recipe``, with ``changes`` of its values; see :func:`tune`. Models in it are paths."""
    folder, checkpoint = _openelm.tune_recipe(
        recipe, changes=_sets(changes or {}), threads=threads, on_step=_decoding(on_step)
    )
    return _tuned(folder, checkpoint)


def _sets(changes: dict[str, Any]) -> list[str]:
    """Numbers, texts, truth values and lists are in JSON what they are in TOML; nothing else is allowed."""
    for key, value in changes.items():
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, (bool, int, float, str, os.PathLike)):
                raise TypeError(f"changes: {key} is {value!r}; it must be a number, a text, a truth value or a list of them")
    return [f"{key}={json.dumps(value, ensure_ascii=False, default=os.fspath)}" for key, value in changes.items()]


def _decoding(on_step: Optional[_OnStep]) -> Optional[Callable[[str], object]]:
    return on_step and (lambda entry: on_step(json.loads(entry)))


def _tuned(folder: _Path, checkpoint: _Path) -> Tuned:
    output = pathlib.Path(folder)
    with open(output / "log.jsonl", encoding="utf-8") as lines:
        log = [json.loads(line) for line in lines]
    return Tuned(pathlib.Path(checkpoint), output / "recipe.toml", log)

"""Evaluation: how well a model answers the tasks of lm-evaluation-harness."""

import json
import os
from typing import Any, Callable, Optional, Union

from . import _openelm

_Path = Union[str, "os.PathLike[str]"]


def evaluate(
    model: Union["_openelm.Model", _Path],
    tasks: Union[str, list[str]],
    *,
    data: Optional[_Path] = None,
    num_fewshot: int = 0,
    limit: Optional[int] = None,
    adapter: Optional[_Path] = None,
    output: Optional[_Path] = None,
    seed: int = 1234,
    harness: str = "0.4.13",
    bos: Optional[bool] = None,
    context: Optional[int] = None,
    cache: str = "f32",
    exact: bool = False,
    tokenizer: Optional[_Path] = None,
    threads: int = 0,
    on_progress: Optional[Callable[[str, float], object]] = None,
) -> dict[str, Any]:
    """Measures ``model``, an open one or the path of one, on ``tasks``, request by request as the harness does.

    >>> openelm.evaluate("OpenELM-270M", ["arc_easy", "arc_challenge:25"], data="datasets", limit=100)["results"]["arc_easy"]["acc,none"]

    A task is a name, with shots (``arc_challenge:25``) or by the rules of an older harness (``race@0.4.9.1``), a group such as
    ``openelm-zero-shot``, or the path of a TOML file of your own, which may say where its documents are. ``data`` is the folder of
    data sets as JSONL: ``arc_easy.test.jsonl``; nothing is downloaded.

    The dict is like that of ``lm_eval.simple_evaluate``: ``results`` and ``groups`` (``acc,none``, ``acc_stderr,none``; ``score,none`` of
    a group whose members count by different metrics), ``versions``, ``n-shot``, ``n-samples``, ``config``. Under ``openelm`` it has
    everything as ``results.json`` does: chance, data files and their hashes, requests that did not fit.

    With ``output``, a folder, results, each document and finished requests go there, and the same call goes on where it was
    interrupted. ``on_progress`` is called with the task at work and the share of all work that is done. Other Python threads run
    meanwhile. Ctrl-C, or an exception of ``on_progress``, ends the work between two requests, once the model is loaded, and is raised
    then.

    Raises :class:`openelm.OpenElmError`, with the sentence of the command.
    """
    names = [name for name in (tasks.split(",") if isinstance(tasks, str) else tasks) if name.strip()]
    if not names:
        raise ValueError("tasks: there is none")
    found = json.loads(
        _openelm.evaluate(
            model,
            names,
            data=data,
            num_fewshot=num_fewshot,
            limit=limit,
            adapter=adapter,
            seed=seed,
            harness=harness,
            bos=bos,
            context=context,
            cache=cache,
            exact=exact,
            output=output,
            tokenizer=tokenizer,
            threads=threads,
            on_progress=on_progress,
        )
    )
    done = found["tasks"]
    return {
        "results": {key: {"alias": key, **_scores(task["metrics"])} for key, task in done.items()},
        "groups": {
            key: {"alias": key, **_scores({_metric(group): group["score"]})} for key, group in found["groups"].items()
        },
        "versions": {key: task["version"] for key, task in done.items()},
        "n-shot": {key: task["shots"] for key, task in done.items()},
        "n-samples": {key: {"effective": task["documents"]} for key, task in done.items()},
        "config": {"model": "openelm", "model_args": found["model"], **found["settings"]},
        "openelm": found,
    }


def _metric(group: dict[str, Any]) -> str:
    metrics = {metric for _, metric in group["members"]}
    return metrics.pop() if len(metrics) == 1 else "score"


def _scores(metrics: dict[str, Any]) -> dict[str, Any]:
    """The harness's names: ``none`` is its word for answers that no filter changed."""
    return {
        name: value
        for metric, score in metrics.items()
        for name, value in ((f"{metric},none", score["value"]), (f"{metric}_stderr,none", score["stderr"]))
    }

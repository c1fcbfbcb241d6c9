"""Tuning and evaluation, with the model that comes along."""

import json
import logging
import os
import pathlib
import signal
import threading
import time

import pytest

import openelm

STORYTELLER = pathlib.Path(__file__).resolve().parents[3] / "models" / "storyteller"
TASK = """
name = "animals"
version = 3
metrics = ["acc", "acc_norm"]

[data]
files = { test = "test.jsonl", train = "train.jsonl" }
split = "test"

[prompt]
kind = "choices"
context = "Question: {{question}}\\nAnswer:"
choices = "choices"
answer = "answer"

[shots]
split = "train"
order = "first"
"""


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def examples(tmp_path):
    animals = ["fox", "goose", "crow", "king"]
    rows = [{"prompt": f"The {animals[i % 4]} said:", "completion": f" I have {i} apples."} for i in range(40)]
    return write(tmp_path / "mine.jsonl", rows)


@pytest.fixture
def task(tmp_path):
    def document(i):
        return {"question": f"Who met a fox on day {i}?", "choices": ["a goose", "the old king"], "answer": i % 2}

    write(tmp_path / "test.jsonl", map(document, range(40)))
    write(tmp_path / "train.jsonl", map(document, range(40, 45)))
    (tmp_path / "animals.toml").write_text(TASK)
    return str(tmp_path / "animals.toml")


QUICK = {"train.batch_size": 1, "train.accumulation": 1, "data.max_length": 32}


def test_tuning_gives_an_adapter_a_recipe_and_the_log(examples, tmp_path):
    output, steps = tmp_path / "run", []
    tuned = openelm.tune(
        openelm.load(STORYTELLER), examples, output=output, steps=4, rank=2, changes=QUICK, on_step=steps.append
    )
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    assert steps[0].keys() >= {"loss", "lr", "gradient_norm", "tokens", "tokens_per_second"}
    assert any("validation_loss" in entry for entry in tuned.log)
    assert [entry for entry in tuned.log if entry["step"] == 4 and "loss" in entry] == [steps[-1]]
    assert tuned.checkpoint.parent == output / "checkpoints" and (tuned.checkpoint / "adapter_config.json").exists()
    assert "rank = 2" in tuned.recipe.read_text()
    assert openelm.generate(openelm.load(STORYTELLER), "The fox", adapter=tuned.checkpoint, max_tokens=5)
    # The recipe is the whole run: elsewhere it gives the same bits.
    again = openelm.tune_recipe(tuned.recipe, changes={"output": str(tmp_path / "again")}, threads=1)
    assert [entry.get("loss") for entry in again.log] == [entry.get("loss") for entry in tuned.log]
    adapter = "adapter_model.safetensors"
    assert (again.checkpoint / adapter).read_bytes() == (tuned.checkpoint / adapter).read_bytes()


def test_all_weights_are_tuned_and_pairs_are_learnt_from(tmp_path, examples):
    full = openelm.tune(STORYTELLER, examples, output=tmp_path / "full", method="full", steps=1, changes=QUICK)
    assert openelm.load(full.checkpoint).describe()["layers"] == openelm.load(STORYTELLER).describe()["layers"]
    rows = [{"prompt": f"Day {i}:", "chosen": " a fox came.", "rejected": " a goose."} for i in range(30)]
    pairs = write(tmp_path / "pairs.jsonl", rows)
    changes = {**QUICK, "log.every": 1}
    tuned = openelm.tune(STORYTELLER, [pairs], output=tmp_path / "pairs", method="dora", dpo=True, steps=2, changes=changes)
    assert any("accuracy" in str(entry.get("metrics")) for entry in tuned.log)


# A shell starts what it runs in the background so, and Python then raises nothing.
interrupts = pytest.mark.skipif(signal.getsignal(signal.SIGINT) == signal.SIG_IGN, reason="started with SIGINT ignored")


@pytest.mark.parametrize("stop", [pytest.param("Ctrl-C", marks=interrupts), "exception"])
def test_an_interrupted_run_goes_on_to_the_same_bits(examples, tmp_path, stop):
    whole = openelm.tune(STORYTELLER, examples, output=tmp_path / "whole", steps=6, changes=QUICK)

    def interrupt(entry):
        if entry["step"] == 2:
            if stop == "exception":
                raise RuntimeError("enough")
            os.kill(os.getpid(), signal.SIGINT)

    def run(on_step=None):
        return openelm.tune(STORYTELLER, examples, output=tmp_path / "run", steps=6, changes=QUICK, on_step=on_step)

    with pytest.raises(KeyboardInterrupt if stop == "Ctrl-C" else RuntimeError):
        run(interrupt)
    [saved] = (tmp_path / "run" / "checkpoints").iterdir()
    assert 2 <= int(saved.name.removeprefix("step-")) < 6
    gone_on = run()
    adapter = "adapter_model.safetensors"
    assert (gone_on.checkpoint / adapter).read_bytes() == (whole.checkpoint / adapter).read_bytes()


def test_other_threads_run_while_a_model_is_tuned(examples, tmp_path):
    turns, stop = [], threading.Event()

    def count():
        while not stop.is_set():
            turns.append(None)
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    openelm.tune(STORYTELLER, examples, output=tmp_path / "run", steps=3, changes=QUICK)
    stop.set()
    thread.join()
    assert len(turns) > 10


def test_what_is_wrong_with_a_run_is_a_sentence(examples, tmp_path, caplog):
    def tune(*arguments, **options):
        return openelm.tune(*arguments, **{"output": tmp_path / "run", **options})

    with pytest.raises(openelm.ModelFileError, match="no/such/model"):
        tune("no/such/model", examples)
    with pytest.raises(openelm.InputError, match="method"):
        tune(STORYTELLER, examples, method="prefix")
    with pytest.raises(openelm.InputError, match="train.stepz"):
        tune(STORYTELLER, examples, changes={"train.stepz": 3})
    with pytest.raises(TypeError, match="changes: model.tokenizer is None"):
        openelm.tune(STORYTELLER, examples, output=tmp_path / "run", changes={"model.tokenizer": None})
    with pytest.raises(openelm.InputError, match="train.steps is 0"):
        tune(STORYTELLER, examples, steps=0)
    with pytest.raises(openelm.InputError, match="mine.jsonl is a file; output is a folder"):
        tune(STORYTELLER, examples, output=examples)
    with pytest.raises(openelm.OpenElmError, match="nothing.jsonl"):
        tune(STORYTELLER, tmp_path / "nothing.jsonl")
    bad = write(tmp_path / "bad.jsonl", [{"prompt": "a"}])
    with pytest.raises(openelm.InputError, match="bad.jsonl"):
        tune(STORYTELLER, bad)
    assert not (tmp_path / "run").exists()
    with pytest.raises(openelm.InputError, match="no/recipe.toml"):
        openelm.tune_recipe("no/recipe.toml")
    with caplog.at_level(logging.INFO, "openelm"):
        tune(STORYTELLER, examples, steps=1, changes=QUICK)
    assert any(line.startswith("saved ") for line in caplog.messages)


def test_results_are_like_those_of_the_harness(task, tmp_path):
    shares = []
    found = openelm.evaluate(
        openelm.load(STORYTELLER), [task, f"{task}:2"], limit=20, on_progress=lambda task, share: shares.append(share)
    )
    assert set(found["results"]) == {"animals-0shot", "animals-2shot"}
    result = found["results"]["animals-0shot"]
    assert result["alias"] == "animals-0shot" and 0 <= result["acc,none"] <= 1 and result["acc_stderr,none"] > 0
    assert found["versions"]["animals-0shot"] == 3 and found["n-shot"]["animals-2shot"] == 2
    assert found["n-samples"]["animals-0shot"] == {"effective": 20} and found["config"]["limit"] == 20
    assert shares == sorted(shares) and shares[-1] == 1
    assert found["openelm"]["tasks"]["animals-0shot"]["metrics"]["acc"]["chance"] == 0.5


def test_an_adapter_is_at_work_in_an_evaluation(task, examples, tmp_path):
    changes = {**QUICK, "train.batch_size": 4}
    tuned = openelm.tune(STORYTELLER, examples, output=tmp_path / "run", steps=8, learning_rate=1e-2, changes=changes)
    plain, adapted = (
        openelm.evaluate(STORYTELLER, task, output=tmp_path / name, adapter=adapter)
        for name, adapter in (("plain", None), ("adapted", tuned.checkpoint))
    )
    assert plain["config"]["model_args"]["adapters"] == [] and adapted["config"]["model_args"]["adapters"]
    samples = [(tmp_path / name / "samples" / "animals.jsonl").read_text() for name in ("plain", "adapted")]
    assert samples[0] != samples[1]


@interrupts
def test_an_interrupted_evaluation_keeps_what_is_finished(task, tmp_path):
    whole = openelm.evaluate(STORYTELLER, task)

    output = tmp_path / "results"

    def interrupt(task, share):
        # Behind the first line, which names the model, once a request is finished.
        if len((output / "requests.jsonl").read_text().splitlines()) > 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        # Of so few documents all may be done when the signal is heard: then it is raised behind them.
        openelm.evaluate(STORYTELLER, task, output=output, on_progress=interrupt)
    assert len((output / "requests.jsonl").read_text().splitlines()) > 1
    assert openelm.evaluate(STORYTELLER, task, output=output)["results"] == whole["results"]


def test_what_is_wrong_with_an_evaluation_is_a_sentence(task, tmp_path):
    with pytest.raises(ValueError, match="tasks: there is none"):
        openelm.evaluate(STORYTELLER, ",")
    with pytest.raises(openelm.InputError, match='perhaps "arc_easy"'):
        openelm.evaluate(STORYTELLER, "arc_eazy")
    with pytest.raises(openelm.InputError, match="arc_easy has no"):
        openelm.evaluate(STORYTELLER, "arc_easy", data=tmp_path)
    with pytest.raises(openelm.InputError, match="hub"):
        openelm.evaluate(STORYTELLER, "arc_easy")
    with pytest.raises(openelm.ModelFileError, match="no/adapter"):
        openelm.evaluate(STORYTELLER, task, adapter="no/adapter")
    with pytest.raises(openelm.InputError, match="0.3"):
        openelm.evaluate(STORYTELLER, task, harness="0.3")
    with pytest.raises(ValueError):
        openelm.evaluate(STORYTELLER, task, limit=0)

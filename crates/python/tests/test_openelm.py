"""What a user of the package does, with the model that comes along."""

import gc
import pathlib
import threading
import time

import numpy as np
import pytest

import openelm

PROMPT = "Once upon a time"
STORYTELLER = pathlib.Path(__file__).resolve().parents[3] / "models" / "storyteller"


@pytest.fixture(scope="module")
def model():
    return openelm.load(STORYTELLER)


def greedy(model, tokens, prompt=PROMPT):
    return openelm.generate(model, prompt, max_tokens=tokens, temperature=0)


def test_pieces_are_the_text_of_greedy_logits(model):
    tokens = model.tokenizer.encode(PROMPT)
    for _ in range(12):
        tokens.append(int(np.argmax(model.next_logits(tokens))))
    assert model.tokenizer.decode(tokens) == PROMPT + greedy(model, 12)


def test_the_model_that_comes_along_is_the_same(model):
    assert greedy(openelm.load(), 30) == greedy(model, 30)


def test_a_session_goes_on_and_forks(model):
    session = model.session()
    generation = session.generate(PROMPT, max_tokens=15, temperature=0, log_probabilities=True)
    pieces = list(generation)
    assert generation.finish == "max_tokens"
    assert all(p <= 0 for piece in pieces for p in piece.log_probabilities)
    first = "".join(piece.text for piece in pieces)
    assert session.text == PROMPT + first
    fork = session.fork()
    model.release_memory()
    rest = "".join(piece.text for piece in session.generate("", max_tokens=25, temperature=0))
    assert first + rest == greedy(model, 40)
    assert "".join(piece.text for piece in fork.generate([], max_tokens=25, temperature=0)) == rest


def test_leaving_a_block_cancels(model):
    session = model.session()
    with session.generate(PROMPT, max_tokens=200, temperature=0) as generation:
        first = next(generation)
    assert generation.finish == "cancelled"
    assert list(generation) == []
    assert session.text == PROMPT + first.text


def test_arrays_have_the_logits_and_own_their_memory(model):
    tokens = model.tokenizer.encode("The fox ran to the river.")
    logits = model.logits(tokens)
    described = model.describe()
    assert logits.shape == (len(tokens), described["vocabulary"]) and logits.dtype == np.float32
    assert np.array_equal(logits[-1], model.next_logits(tokens))
    states = model.hidden_states(tokens)
    assert states.shape == (described["layers"] + 1, len(tokens), described["width"])
    assert np.isfinite(states).all()
    for array in (logits, states):
        assert array.flags.writeable and array.base is not None
    kept = logits[0].copy()
    del model
    gc.collect()
    assert np.array_equal(logits[0], kept)


def test_other_threads_run_while_the_model_writes(model):
    turns = []
    stop = threading.Event()

    def count():
        while not stop.is_set():
            turns.append(None)
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    generation = model.session().generate(PROMPT, max_tokens=100, temperature=0)
    thread.start()
    list(generation)
    stop.set()
    thread.join()
    assert turns


def test_errors_are_those_of_python(model):
    with pytest.raises(OSError, match="no/such/model"):
        openelm.load("no/such/model")
    with pytest.raises(MemoryError, match="available"):
        openelm.load(STORYTELLER, memory=1)
    with pytest.raises(ValueError, match="temperature"):
        model.session().generate(PROMPT, temperature=float("nan"))
    with pytest.raises(ValueError, match="256"):
        next(model.session().generate("word " * 1000))
    with pytest.raises(ValueError, match="out of range"):
        model.logits([99999])
    with pytest.raises(openelm.InputError, match="cache"):
        openelm.load(STORYTELLER, cache="f8")
    session = model.session()
    generation = session.generate(PROMPT, max_tokens=200)
    with pytest.raises(openelm.BusyError):
        session.text
    generation.cancel()
    assert session.text.startswith(PROMPT)


def test_memory_is_reckoned_before_loading():
    needed = openelm.footprint(STORYTELLER)
    assert needed["total"] == needed["weights"] + needed["cache"] + needed["buffers"]
    assert openelm.footprint(STORYTELLER, cache="int8")["cache"] < needed["cache"]
    assert openelm.available_memory() is None or openelm.available_memory() > 0


def test_models_are_converted(model, tmp_path):
    file = tmp_path / "tale.gguf"
    openelm.convert(STORYTELLER, file, "gguf", quantisation="q8_0")
    assert openelm.load(file).describe()["format"] == "GGUF"
    with pytest.raises(openelm.ModelFileError, match="exists"):
        openelm.convert(STORYTELLER, file, "gguf")
    with pytest.raises(openelm.InputError, match="q9"):
        openelm.convert(STORYTELLER, tmp_path / "other.gguf", "gguf", quantisation="q9")


def test_a_script_for_transformers(model):
    from openelm.transformers import AutoModelForCausalLM, AutoTokenizer

    causal = AutoModelForCausalLM.from_pretrained(STORYTELLER, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(STORYTELLER)
    ids = tokenizer(PROMPT, return_tensors="np").input_ids
    written = causal.generate(ids, max_new_tokens=20)
    assert written.shape == (1, ids.shape[1] + 20)
    assert tokenizer.decode(written[0], skip_special_tokens=True) == PROMPT + greedy(model, 20)
    batch = tokenizer([PROMPT, "The fox and the crow"], return_tensors="np", padding=True)
    both = causal.generate(**batch, max_new_tokens=20)
    assert tokenizer.decode(both[0][-20:]) == tokenizer.decode(written[0][-20:])
    output = causal(ids, output_hidden_states=True)
    assert output.logits.shape[:2] == ids.shape and len(output.hidden_states) == model.describe()["layers"] + 1
    assert np.array_equal(output.logits[0], model.logits(ids[0].tolist()))
    with pytest.raises(openelm.InputError, match="num_beams"):
        AutoModelForCausalLM.from_pretrained(STORYTELLER, num_beams=4)


def resident():
    """KiB of memory that are this process's own; 0 where the system does not say."""
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def test_memory_is_flat_over_a_thousand_rounds():
    def round_trip():
        session = openelm.load(STORYTELLER).session()
        with session.generate(PROMPT, max_tokens=100, temperature=0) as generation:
            next(generation)

    for _ in range(100):
        round_trip()
    before = resident()
    for _ in range(900):
        round_trip()
    print(f"1000 rounds: {before} KiB after a tenth of them, {resident()} KiB at the end")
    assert resident() - before < 1000

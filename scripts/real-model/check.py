"""Compares `openelm` with llama.cpp on one GGUF file: ids of odd texts, greedy tokens, perplexity, rates.

    python scripts/real-model/check.py OPENELM MODEL.gguf BOOK.txt [PROMPTS [WINDOWS]]

Rates are taken in turns; they mean something only on a machine with nothing else to do.
"""

import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request

import xllamacpp

openelm, model, book = sys.argv[1:4]
PROMPTS, WINDOWS = [int(n) for n in (sys.argv[4:] + ["20", "20"][len(sys.argv) - 4 :])]
WINDOW, MADE = 512, 64
# Added to a logit before sampling, so that this token is the one drawn; the log-probabilities reported are those before it.
FORCED = 1e5

parameters = xllamacpp.CommonParams()
parameters.model.path = model
parameters.n_ctx = 2048
parameters.n_parallel = 1
parameters.port = 0
parameters.verbosity = -1
parameters.cpuparams.n_threads = os.cpu_count() // 2 or 1
server = xllamacpp.Server(parameters)


def peer(path, body):
    request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    return json.load(urllib.request.urlopen(request, timeout=600))


def ours(*arguments, read=""):
    command = [openelm, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, input=read.encode()).stdout


def peer_ids(text):
    return peer("/tokenize", {"content": text, "add_special": False, "parse_special": False})["tokens"]


def ids_agree():
    rng = random.Random(3)
    signs = "ab 12\n\t.,'sré日😀\u0301()<>|=$\x00\x7f"
    texts = ["  5", "t\x00he", "<|im_start|>user\nhi<|im_end|>", "I'M it's don't", "x\n\n\n y\t\tz  "]
    texts += ["".join(rng.choice(signs) for _ in range(rng.randint(1, 40))) for _ in range(200)]
    differ = [text for text in texts if json.loads(ours("tokenizer", "encode", model, read=text)) != peer_ids(text)]
    print(f"ids: {len(texts) - len(differ)} of {len(texts)} texts agree {differ[:3]}")
    return not differ


def greedy(prompts):
    alike = 0
    for prompt in prompts:
        theirs = peer(
            "/completion",
            {"prompt": peer_ids(prompt), "n_predict": MADE, "temperature": 0, "cache_prompt": False, "return_tokens": True,
             "n_probs": 2, "ignore_eos": False},
        )
        arguments = ["generate", prompt, "--model", model, "--greedy", "--exact", "--json", "-n", str(MADE)]
        found = json.loads(ours(*arguments))["ids"]
        expected = theirs["tokens"][: len(found)] if len(theirs["tokens"]) == len(found) + 1 else theirs["tokens"]
        if found == expected:
            alike += 1
            continue
        place = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
        best = theirs["completion_probabilities"][place]["top_logprobs"] if place < len(theirs["tokens"]) else []
        print(f"  parted at {place}: {[(b['id'], round(b['logprob'], 4)) for b in best]} in {prompt[:40]!r}")
    print(f"greedy: {alike} of {len(prompts)} prompts alike over {MADE} tokens")
    return alike == len(prompts)


def perplexity(text):
    """Window by window as llama-perplexity does: the second half counts."""
    ids = peer_ids(text)
    nats, count = 0.0, 0
    for window in range(min(WINDOWS, len(ids) // WINDOW)):
        tokens = ids[window * WINDOW : (window + 1) * WINDOW]
        for i in range(WINDOW // 2 + 1, WINDOW):
            answer = peer(
                "/completion",
                {"prompt": tokens[:i], "n_predict": 1, "temperature": 0, "n_probs": 1, "logit_bias": [[tokens[i], FORCED]],
                 "cache_prompt": True},
            )
            drawn = answer["completion_probabilities"][0]
            assert drawn["id"] == tokens[i]
            nats -= drawn["logprob"]
            count += 1
    theirs = nats / count
    found = {}
    for way in ("--exact", ""):
        arguments = ["perplexity", book_pages, "--model", model, "--windows", str(WINDOWS), "--json", *([way] if way else [])]
        found[way or "integers"] = json.loads(ours(*arguments))["nats_per_token"]
    for way, nats in found.items():
        print(f"perplexity ({way.strip('-')}): {math.exp(nats):.4f}, llama.cpp {math.exp(theirs):.4f} ({100 * math.expm1(nats - theirs):+.3f} %)")
    return abs(math.expm1(found["--exact"] - theirs)) < 1e-3


def rates(text):
    ids = peer_ids(text)[:512]
    pairs = {"prefill": [], "decode": []}
    for _ in range(5):
        timings = peer("/completion", {"prompt": ids, "n_predict": MADE, "temperature": 0, "cache_prompt": False, "ignore_eos": True})["timings"]
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(text[: len(text) // 4])
            file.flush()
            found = json.loads(ours("generate", "--file", file.name, "--model", model, "--greedy", "--ignore-eos", "-n", str(MADE), "--json"))
        pairs["prefill"].append(found["prompt_tokens_per_second"] / timings["prompt_per_second"])
        pairs["decode"].append(found["tokens_per_second"] / timings["predicted_per_second"])
        time.sleep(1)
    for what, ratios in pairs.items():
        ratios.sort()
        print(f"{what}: {ratios[len(ratios) // 2]:.2f} of llama.cpp's rate ({ratios[0]:.2f} to {ratios[-1]:.2f})")


text = open(book, encoding="utf-8").read()
pages = text[: WINDOW * WINDOWS * 5]
book_pages = tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False).name
open(book_pages, "w", encoding="utf-8").write(pages)
sentences = [line for line in text.split("\n") if len(line) > 40]
prompts = [sentences[i * len(sentences) // PROMPTS] for i in range(PROMPTS)]
results = [ids_agree(), greedy(prompts), perplexity(pages)]
rates(pages[:8000])
os.unlink(book_pages)
sys.stdout.flush()
os._exit(0 if all(results) else 1)

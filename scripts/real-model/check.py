"""Compares `openelm` with llama.cpp on one GGUF file: ids of odd texts, greedy tokens, perplexity, rates.

    python scripts/real-model/check.py OPENELM MODEL.gguf BOOK.txt [PROMPTS [WINDOWS]]

llama.cpp rounds activations to 8 bits where weights are quantised, and keeps keys and values in 16 bits. For tokens and
perplexity it is given the same weights in 32 bits, and a cache of 32 bits, so that it computes what `--exact` does. Rates are of
the file as it is, taken in turns; they mean something only on a machine with nothing else to do.
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


class Peer:
    """llama.cpp with one model, on one thread per physical core."""

    def __init__(self, path, exact=False):
        parameters = xllamacpp.CommonParams()
        parameters.model.path = path
        parameters.n_ctx = 2048
        parameters.n_parallel = 1
        parameters.port = 0
        parameters.verbosity = -1
        # Threads that wait spin: on a busy machine one is faster than two.
        parameters.cpuparams.n_threads = 1 if exact else threads
        if exact:
            parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
            parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = xllamacpp.Server(parameters)

    def ask(self, path, body):
        request = urllib.request.Request(self.server.listening_address + path, json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        return json.load(urllib.request.urlopen(request, timeout=3600))

    def complete(self, prompt, tokens, **options):
        return self.ask("/completion", {"prompt": prompt, "n_predict": tokens, "temperature": 0} | options)

    def ids(self, text):
        return self.ask("/tokenize", {"content": text, "add_special": False, "parse_special": False})["tokens"]


def ours(*arguments, read=""):
    command = [openelm, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, input=read.encode()).stdout


def ids_agree(peer):
    rng = random.Random(3)
    signs = "ab 12\n\t.,'sré日😀\u0301()<>|=$\x00\x7f"
    texts = ["  5", "t\x00he", "<|im_start|>user\nhi<|im_end|>", "I'M it's don't", "x\n\n\n y\t\tz  "]
    texts += ["".join(rng.choice(signs) for _ in range(rng.randint(1, 40))) for _ in range(200)]
    differ = [text for text in texts if json.loads(ours("tokenizer", "encode", model, read=text)) != peer.ids(text)]
    print(f"ids: {len(texts) - len(differ)} of {len(texts)} texts agree {differ[:3]}", flush=True)
    return not differ


def greedy_agrees(peer, prompts):
    alike = 0
    for prompt in prompts:
        theirs = peer.complete(peer.ids(prompt), MADE, cache_prompt=False, return_tokens=True, n_probs=2)
        found = json.loads(ours("generate", prompt, "--model", model, "--greedy", "--exact", "--json", "-n", str(MADE)))["ids"]
        expected = theirs["tokens"][: len(found)] if len(theirs["tokens"]) == len(found) + 1 else theirs["tokens"]
        if found == expected:
            alike += 1
            continue
        place = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
        best = theirs["completion_probabilities"][place]["top_logprobs"] if place < len(theirs["tokens"]) else []
        print(f"  parted at {place}: {[(b['id'], round(b['logprob'], 4)) for b in best]} in {prompt[:40]!r}", flush=True)
    print(f"greedy: {alike} of {len(prompts)} prompts alike over {MADE} tokens", flush=True)
    return alike == len(prompts)


def nats_per_token(peer, ids):
    """Window by window as llama-perplexity does: the second half counts."""
    nats, count = 0.0, 0
    for window in range(min(WINDOWS, len(ids) // WINDOW)):
        tokens = ids[window * WINDOW : (window + 1) * WINDOW]
        for i in range(WINDOW // 2 + 1, WINDOW):
            answer = peer.complete(tokens[:i], 1, n_probs=1, logit_bias=[[tokens[i], FORCED]], cache_prompt=True)
            drawn = answer["completion_probabilities"][0]
            assert drawn["id"] == tokens[i]
            nats -= drawn["logprob"]
            count += 1
    return nats / count


def perplexity_agrees(peer, path, text):
    theirs = nats_per_token(peer, peer.ids(text))
    found = {}
    for way in ("--exact", ""):
        arguments = ["perplexity", path, "--model", model, "--windows", str(WINDOWS), "--json", *([way] if way else [])]
        found[way or "integers"] = json.loads(ours(*arguments))["nats_per_token"]
    for way, nats in found.items():
        print(f"perplexity ({way.strip('-')}): {math.exp(nats):.4f}, llama.cpp {math.exp(theirs):.4f} ({100 * math.expm1(nats - theirs):+.3f} %)")
    return abs(math.expm1(found["--exact"] - theirs)) < 1e-3


def compare_rates(peer, text):
    ids = peer.ids(text)[:512]
    pairs = {"prefill": [], "decode": []}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(text[: len(text) // 4])
        file.flush()
        for _ in range(5):
            timings = peer.complete(ids, MADE, cache_prompt=False, ignore_eos=True)["timings"]
            found = json.loads(ours("generate", "--file", file.name, "--model", model, "--greedy", "--ignore-eos", "-n", str(MADE), "--json"))
            pairs["prefill"].append((found["prompt_tokens_per_second"], timings["prompt_per_second"]))
            pairs["decode"].append((found["tokens_per_second"], timings["predicted_per_second"]))
            time.sleep(1)
    for what, rates in pairs.items():
        ratios = sorted(mine / theirs for mine, theirs in rates)
        mine, theirs = [sorted(side)[len(side) // 2] for side in zip(*rates)]
        print(f"{what}: {mine:.0f} and {theirs:.0f} tokens/s, {ratios[len(ratios) // 2]:.2f} of llama.cpp's rate ({ratios[0]:.2f} to {ratios[-1]:.2f})")


threads = len({tuple(open(f"/sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list")) for cpu in os.sched_getaffinity(0)})
text = open(book, encoding="utf-8").read()
pages = text[: WINDOW * WINDOWS * 5]
sentences = [line for line in text.split("\n") if len(line) > 40]
prompts = [sentences[i * len(sentences) // PROMPTS] for i in range(PROMPTS)]
with tempfile.TemporaryDirectory() as folder:
    wide, book_pages = os.path.join(folder, "wide.gguf"), os.path.join(folder, "pages.txt")
    ours("convert", model, wide, "--to", "gguf", "--quant", "f32")
    with open(book_pages, "w", encoding="utf-8") as file:
        file.write(pages)
    peer = Peer(wide, exact=True)
    results = [ids_agree(peer), greedy_agrees(peer, prompts), perplexity_agrees(peer, book_pages, pages)]
compare_rates(Peer(model), pages[:8000])
sys.stdout.flush()
os._exit(0 if all(results) else 1)

#!/usr/bin/env python3
"""Compares a results folder of `openelm eval` with lm-evaluation-harness, document by document.

    openelm eval --model MODEL --tasks arc_easy,piqa --data SETS --output RESULTS
    python scripts/peers/harness.py RESULTS --data SETS --model MODEL

The harness runs the tasks, shots and limit that RESULTS has, over the same files. Contexts and continuations have to be equal to the
character, log-likelihoods within --tolerance, relatively, metrics of all documents equal or accounted for: a decision that differs is
shown with the margin that it was made by. Exit status 0 if all agree, 1 otherwise.

MODEL is a Hugging Face folder that transformers opens (with --gguf the name of a file in it, which is dequantised to f32), or with
--openelm a folder of OpenELM with its tokenizer.model, which torch_openelm.py beside this file runs.

The harness's finished requests can be kept with --keep FOLDER; a second call goes on behind them. --shared has PyTorch compute what
the continuations of a document have in common once, and only the logits that are asked for, which is the same sums in another order:
full sets take it a third of the time on a processor.

With --time it measures instead: the same tasks by turns with the command line given, and the ratio of the medians:

    python scripts/peers/harness.py RESULTS --data SETS --model MODEL --batch 16 --dtype bfloat16 \\
        --time "openelm eval --model MODEL --tasks arc_easy,piqa --data SETS" --rounds 3

    pip install lm-eval==0.4.13 torch transformers accelerate zstandard sentencepiece safetensors gguf
"""
import argparse
import importlib.util
import io
import json
import pathlib
import shlex
import statistics
import subprocess
import sys
import time
import tomllib

import datasets
import lm_eval
import torch
import zstandard
from lm_eval.models.huggingface import HFLM

TASKS = pathlib.Path(__file__).parents[2] / "crates/eval/tasks"


def rows(path):
    """The documents of a file of lines of JSON, compressed or not."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
    return [json.loads(line) for line in data.decode().split("\n") if line.strip()]


class Splits(dict):
    """The splits of a data set. One that is not here is looked at by the harness all the same; it gets another in its place."""

    def __init__(self, folder, config):
        super().__init__()
        for path in folder.glob("*.jsonl*"):
            found = rows(path)
            if found and "subject" in found[0]:
                found = [row for row in found if row["subject"] == config]
            self[path.name.split(".")[0]] = datasets.Dataset.from_list(found)

    def __missing__(self, split):
        return next(self[name] for name in ("test", "validation", "train") if name in self)


def serve(folder):
    """Has the harness find data sets in `folder`."""
    places = {}
    for path in TASKS.glob("*.toml"):
        data = tomllib.loads(path.read_text())["data"]
        if "hub" in data:
            places[data["hub"], data.get("config")] = data["folder"]

    def load(path, name=None, **_):
        found = places.get((path, name)) or places.get((path, None)) or places.get((path, "{variant}"))
        if found is None:
            raise FileNotFoundError(f"{path} {name} is in no task file")
        return Splits(folder / found, name)

    datasets.load_dataset = load


class OpenElm(HFLM):
    """The harness's own model class around torch_openelm.py and SentencePiece."""

    def __init__(self, folder, batch, context, dtype=torch.float32):
        import safetensors.torch
        import sentencepiece

        spec = importlib.util.spec_from_file_location("torch_openelm", pathlib.Path(__file__).with_name("torch_openelm.py"))
        torch_openelm = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(torch_openelm)
        config = json.loads((folder / "config.json").read_text())
        network = torch_openelm.OpenELM(torch_openelm.geometry_from_config(config))
        weights = safetensors.torch.load_file(folder / "model.safetensors")
        network.to(dtype).load_state_dict({name.removeprefix("transformer."): w.to(dtype) for name, w in weights.items()})
        super(HFLM, self).__init__()
        self.network, self.backend, self.logits_cache, self.softmax_dtype = network.eval(), "causal", True, None
        self.batch_size_per_gpu, self._max_length = batch, context or config["max_context_length"]
        self._device, self._rank, self._world_size = torch.device("cpu"), 0, 1
        self.custom_prefix_token_id, self.add_bos_token, self.enable_thinking = 1, True, None
        self.sentencepiece = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))

    def tok_encode(self, string, add_special_tokens=None, **_):
        ids = self.sentencepiece.encode(string)
        return ids if add_special_tokens is False else [1, *ids]

    def _model_call(self, inps, attn_mask=None, labels=None):
        with torch.no_grad():
            return self.network(inps)

    def get_model_info(self):
        return {}

    tokenizer_name = "openelm"


class Shared(HFLM):
    """The harness's model class with one forward pass for all continuations of a context: they stand behind it side by side, and
    none sees the others."""

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, override_bs=None):
        documents = {}
        for place, (_, context, continuation) in enumerate(requests):
            kept = (context + continuation)[-(self.max_length + 1):]
            documents.setdefault(tuple(kept[: len(kept) - len(continuation)]), []).append(place)
        answers = [None] * len(requests)
        for context, places in documents.items():
            continuations = [requests[place][2] for place in places]
            for place, answer in zip(places, self.answers(list(context), continuations)):
                answers[place] = answer
                if requests[place][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[place][0], answer)
        return answers

    def answers(self, context, continuations):
        tokens, positions, owner, rows = list(context), list(range(len(context))), [-1] * len(context), []
        for number, continuation in enumerate(continuations):
            shown = continuation[:-1]
            rows.append([len(context) - 1, *range(len(tokens), len(tokens) + len(shown))])
            tokens += shown
            positions += range(len(context), len(context) + len(shown))
            owner += [number] * len(shown)
        owner = torch.tensor(owner)
        seen = (owner[None, :] == -1) | (owner[None, :] == owner[:, None])
        seen &= torch.ones_like(seen).tril()
        mask = torch.zeros(seen.shape, dtype=self.model.dtype).masked_fill(~seen, torch.finfo(self.model.dtype).min)
        wanted = sorted({row for some in rows for row in some})
        with torch.no_grad():
            logits = self.model(input_ids=torch.tensor([tokens]), position_ids=torch.tensor([positions]), attention_mask=mask[None, None],
                                logits_to_keep=torch.tensor(wanted), use_cache=False).logits[0]
        logits = torch.log_softmax(logits.float(), -1)
        for continuation, some in zip(continuations, rows):
            found = logits[[wanted.index(row) for row in some]]
            targets = torch.tensor(continuation)
            greedy = bool((found.argmax(-1) == targets).all())
            yield float(found.gather(-1, targets[:, None]).sum()), greedy


def load(arguments):
    if arguments.openelm:
        return OpenElm(arguments.model, arguments.batch, arguments.context, getattr(torch, arguments.dtype))
    extra = {"gguf_file": arguments.gguf} if arguments.gguf else {}
    kind = Shared if arguments.shared else HFLM
    return kind(pretrained=str(arguments.model), device="cpu", dtype=arguments.dtype, batch_size=arguments.batch,
                max_length=arguments.context, **extra)


def run(model, task, shots, limit, keep=None):
    """The samples and scores that the harness gives."""
    found = lm_eval.simple_evaluate(model=model, tasks=[task], num_fewshot=shots, limit=limit, log_samples=True, verbosity="ERROR",
                                    use_cache=str(keep / task) if keep else None)
    return found["samples"][task], found["results"][task], found["versions"][task]


def compare(ours, theirs, tolerance, what, complain):
    """One document."""
    contexts = ours["context"] if isinstance(ours["context"], list) else [ours["context"]] * len(ours["continuations"])
    arguments = [tuple(pair) if len(pair) == 2 else ("", pair[0]) for pair in theirs["arguments"]]
    if list(zip(contexts, ours["continuations"])) != arguments:
        complain(f"{what}: other requests\n  ours   {contexts[0]!r} {ours['continuations']!r}\n  theirs {arguments!r}")
        return 0.0, False
    replies = [reply[0] for reply in theirs["resps"]]
    found = [reply[0] if isinstance(reply, (tuple, list)) else reply for reply in replies]
    worst = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(ours["log_likelihoods"], found))
    if not worst <= tolerance:
        complain(f"{what}: log-likelihoods {ours['log_likelihoods']} instead of {found}")
    flipped = any(isinstance(value, float) and value != theirs[name] and name.startswith(("acc", "pct"))
                  and value in (0.0, 1.0) for name, value in ours["metrics"].items())
    if flipped:
        complain(f"{what}: {ours['metrics']} instead of { {name: theirs[name] for name in ours['metrics']} }, from {found}")
    return worst, flipped


def check(arguments, results):
    model, wrong = load(arguments), []
    limit = results["settings"]["limit"]
    for key, ours in results["tasks"].items():
        if ours["task"].startswith("llm_adapters"):
            continue
        samples = rows(arguments.results / "samples" / f"{key}.jsonl")
        theirs, scores, version = run(model, ours["task"], ours["shots"], limit, arguments.keep)
        before, worst, flipped = len(wrong), 0.0, 0
        if len(samples) != len(theirs) or float(version) != ours["version"]:
            wrong.append(f"{key}: {len(samples)} documents of version {ours['version']}, {len(theirs)} of {version}")
        for place, (sample, other) in enumerate(zip(samples, sorted(theirs, key=lambda sample: sample["doc_id"]))):
            distance, flip = compare(sample, other, arguments.tolerance, f"{key} {place}", wrong.append)
            worst, flipped = max(worst, distance), flipped + flip
        line = []
        for metric, score in ours["metrics"].items():
            value, stderr = scores[f"{metric},none"], scores[f"{metric}_stderr,none"]
            line.append(f"{metric} {score['value']:.6g} ({value:.6g})")
            if score["stderr"] is not None and abs(score["stderr"] - stderr) > 1e-6 + 1e-3 * abs(stderr):
                wrong.append(f"{key}: standard error of {metric} {score['stderr']} instead of {stderr}")
        state = "agrees" if len(wrong) == before else f"{len(wrong) - before} differences"
        print(f"{key}: {state}; {len(samples)} documents, {', '.join(line)}; log-likelihoods within {worst:.1e}, {flipped} flipped",
              flush=True)
    print(*wrong[:20], sep="\n")
    return 1 if wrong else 0


def measure(arguments, results):
    """Times both by turns, loading left out of the harness's time and not of ours."""
    model = load(arguments)
    tasks = [(ours["task"], ours["shots"]) for ours in results["tasks"].values()]
    times = {"harness": [], "openelm": []}
    for _ in range(arguments.rounds):
        begin = time.perf_counter()
        for task, shots in tasks:
            run(model, task, shots, results["settings"]["limit"])
        times["harness"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        subprocess.run(shlex.split(arguments.time), check=True, capture_output=True)
        times["openelm"].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(json.dumps({"seconds": times, "ratio": medians["harness"] / medians["openelm"]}))
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--gguf")
    parser.add_argument("--openelm", action="store_true")
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--keep", type=pathlib.Path)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--context", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--time", metavar="COMMAND")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    serve(arguments.data)
    results = json.loads((arguments.results / "results.json").read_text())
    return measure(arguments, results) if arguments.time else check(arguments, results)


if __name__ == "__main__":
    sys.exit(main())

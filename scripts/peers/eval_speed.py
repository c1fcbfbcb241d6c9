#!/usr/bin/env python3
"""Times `openelm eval` and lm-evaluation-harness with PyTorch on the same random OpenELM, by turns.

    python scripts/peers/eval_speed.py prepare WORK --data SETS --tokenizer tokenizer.model --openelm target/release/openelm
    python scripts/peers/eval_speed.py measure WORK --openelm target/release/openelm --rounds 2

`prepare` writes the model in f32, bf16 and Q8_0, and the first documents of the sets, `--share` of them. `measure` takes turns: the
harness in f32, ours in f32, the harness in bf16, ours in bf16, ours in Q8_0, once a round. Timed are scoring and making the requests:
loading of models, and what the harness does before and behind its requests, are left out. A table shows seconds a task, and what they
make for whole sets: a task of N documents takes N times what one of the measured ones takes. That is in favour of the harness where
documents share their beginning (mmlu), of which a small part has less.

With `--batches 8,16,32` the harness tries these on the first task, and goes on with the fastest for each type.

    pip install lm-eval==0.4.13 torch transformers accelerate zstandard sentencepiece safetensors
"""
import argparse
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import time

import harness
import torch
import torch_openelm

# Task, shots, the file of its documents and the field that tells them from others, whole size, and how many are measured at share 1.
TASKS = [
    ("arc_easy", 0, "ai2_arc/ARC-Easy/test", None, 2376),
    ("piqa", 0, "piqa/validation", None, 1838),
    ("hellaswag", 0, "hellaswag/validation", None, 1000),
    ("mmlu_abstract_algebra", 5, "mmlu/test", "abstract_algebra", 100),
    ("mmlu_anatomy", 5, "mmlu/test", "anatomy", 135),
    ("mmlu_astronomy", 5, "mmlu/test", "astronomy", 152),
]


def name(task, shots):
    return f"{task}:{shots}" if shots else task


def write_sets(sets, target, share, fewest):
    files = {}
    for _, _, file, subject, whole in TASKS:
        rows = harness.rows(next(sets.glob(f"{file}.jsonl*")))
        rows = [row for row in rows if subject is None or row["subject"] == subject]
        files.setdefault(file, []).extend(rows[: max(fewest, round(share * whole))])
    files["mmlu/dev"] = harness.rows(next(sets.glob("mmlu/dev.jsonl*")))
    for file, rows in files.items():
        path = target / f"{file}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_models(work, size, tokenizer, openelm):
    from safetensors.torch import save_file

    geometry = torch_openelm.released(size)
    model = torch_openelm.random_model(geometry)
    config = {
        "architectures": ["OpenELMForCausalLM"], "model_type": "openelm", "activation_fn_name": "swish", "bos_token_id": 1,
        "eos_token_id": 2, "ffn_dim_divisor": 256, "ffn_multipliers": [ffn / geometry.dim for ffn in geometry.ffn],
        "ffn_with_glu": True, "head_dim": geometry.head, "initializer_range": 0.02, "max_context_length": 2048,
        "model_dim": geometry.dim, "normalization_layer_name": "rms_norm", "normalize_qk_projections": True, "num_gqa_groups": 4,
        "num_kv_heads": geometry.keys, "num_query_heads": geometry.queries, "num_transformer_layers": len(geometry.ffn),
        "qkv_multipliers": [0.5, 1.0], "rope_freq_constant": 10000, "rope_max_length": 4096, "share_input_output_layers": True,
        "vocab_size": geometry.vocabulary,
    }
    # The same numbers in both.
    weights = {f"transformer.{key}": value.detach().to(torch.bfloat16) for key, value in model.state_dict().items()}
    for dtype in ("float32", "bfloat16"):
        folder = work / dtype
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": dtype}))
        save_file({key: value.to(getattr(torch, dtype)) for key, value in weights.items()}, folder / "model.safetensors",
                  metadata={"format": "pt"})
        shutil.copy(tokenizer, folder / "tokenizer.model")
    command = [openelm, "convert", work / "float32", work / "q8_0.gguf", "--to", "gguf", "--quant", "q8_0", "--no-compare"]
    subprocess.run(command, check=True)


class Peer:
    """The harness with the model in one type; it counts the seconds that its requests take."""

    def __init__(self, folder, dtype, batch, threads):
        torch.set_num_threads(threads)
        self.model = harness.OpenElm(folder, batch, None, getattr(torch, dtype))
        self.seconds = 0.0
        answer = self.model.loglikelihood

        def timed(requests, **rest):
            begin = time.perf_counter()
            answers = answer(requests, **rest)
            self.seconds += time.perf_counter() - begin
            return answers

        self.model.loglikelihood = timed

    def run(self, task, shots):
        before = self.seconds
        samples, _, _ = harness.run(self.model, task, shots, None)
        samples.sort(key=lambda sample: sample["doc_id"])
        return self.seconds - before, [sample["acc"] for sample in samples]


def ours(openelm, model, sets, work, task, shots, threads, tokenizer):
    """Seconds as the command says them, tokens that went through the model, and the decisions."""
    out = work / "results"
    shutil.rmtree(out, ignore_errors=True)
    command = [openelm, "eval", "--model", model, "--tokenizer", tokenizer, "--data", sets, "--tasks", name(task, shots), "--threads",
               str(threads), "--output", out]
    said = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stderr
    tokens, seconds = re.search(r"(\d+) tokens through the model in ([\d.]+) s", said).groups()
    samples = next((out / "samples").glob("*.jsonl"))
    return float(seconds), int(tokens), [row["metrics"]["acc"] for row in harness.rows(samples)]


def fastest(work, dtype, batches, threads):
    """The batch size that is fastest on the first task."""
    if len(batches) == 1:
        return batches[0]
    task, shots = TASKS[0][:2]
    times = {batch: Peer(work / "float32", dtype, batch, threads).run(task, shots)[0] for batch in batches}
    print(f"{dtype}: " + ", ".join(f"batch {batch} {seconds:.1f} s" for batch, seconds in times.items()), flush=True)
    return min(times, key=times.get)


def measure(options):
    work, sets = options.work, options.work / "sets"
    harness.serve(sets)
    peers = {}
    for dtype in options.dtypes:
        batch = fastest(work, dtype, options.batches, options.threads)
        peers[dtype] = Peer(work / "float32", dtype, batch, options.threads)
    mine = {dtype: work / dtype for dtype in options.dtypes} | {"q8_0": work / "q8_0.gguf"}
    seconds, decisions, tokens = {}, {}, {}
    for turn in range(options.rounds):
        for task, shots, *_ in TASKS:
            for dtype, model in mine.items():
                if dtype in peers:
                    found, answers = peers[dtype].run(task, shots)
                    seconds.setdefault(("harness", dtype, task), []).append(found)
                    decisions["harness", dtype, task] = answers
                found, tokens[task], answers = ours(options.openelm, model, sets, work, task, shots, options.threads,
                                                    work / "float32/tokenizer.model")
                seconds.setdefault(("ours", dtype, task), []).append(found)
                decisions["ours", dtype, task] = answers
            print(f"round {turn + 1}: {task}", {" ".join(key[:2]): round(times[-1], 2) for key, times in seconds.items() if key[2] == task},
                  flush=True)
    report(seconds, decisions, tokens)


def report(seconds, decisions, tokens):
    columns = list(dict.fromkeys(key[:2] for key in seconds))
    print("\n| task | documents | of | " + " | ".join(" ".join(column) for column in columns) + " | our tokens |")
    print("|" + "---|" * (len(columns) + 4))
    whole = dict.fromkeys(columns, 0.0)
    for task, *_, size in TASKS:
        count = len(decisions[(*columns[0], task)])
        line = [statistics.median(seconds[(*column, task)]) for column in columns]
        for column, found in zip(columns, line):
            whole[column] += found * size / count
        print(f"| {task} | {count} | {size} | " + " | ".join(f"{found:.2f} s" for found in line) + f" | {tokens[task]} |")
    print("| whole sets | | | " + " | ".join(f"{whole[column]:.0f} s" for column in columns) + " | |")
    base = {dtype: whole["harness", dtype] for kind, dtype in columns if kind == "harness"}
    for dtype, time_of_harness in base.items():
        print(f"{dtype}: {time_of_harness / whole['ours', dtype]:.2f} times the harness")
    best = min(base.values())
    print(f"q8_0: {best / whole['ours', 'q8_0']:.2f} times the harness in its faster type")
    reference = columns[0]
    for column in columns[1:]:
        pairs = [pair for task, *_ in TASKS for pair in zip(decisions[(*reference, task)], decisions[(*column, task)])]
        same = sum(a == b for a, b in pairs)
        print(f"{' '.join(column)}: {same} of {len(pairs)} decisions as {' '.join(reference)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["prepare", "measure"])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--openelm", default="openelm")
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--tokenizer", type=pathlib.Path)
    parser.add_argument("--size", default="270M")
    parser.add_argument("--share", type=float, default=0.01, help="of each set, that is measured")
    parser.add_argument("--fewest", type=int, default=3, help="documents of each set, at least")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=lambda text: [int(number) for number in text.split(",")], default=[16])
    parser.add_argument("--dtypes", type=lambda text: text.split(","), default=["float32", "bfloat16"])
    options = parser.parse_args()
    if options.step == "prepare":
        write_sets(options.data, options.work / "sets", options.share, options.fewest)
        write_models(options.work, options.size, options.tokenizer, options.openelm)
    else:
        measure(options)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Adapters of openelm and of PEFT, in turns: tokens per second and the most memory of each process.

    cargo bench -p openelm-train --bench side_by_side --no-run      # prints the path of OURS
    python scripts/peers/tuning_speed.py OURS PEER [--rounds 3] [--size 270M] [--rows 4] [--time 256] [--steps 3]

PEER is a command such as "python torch_openelm.py" with PyTorch and PEFT. Measured are LoRA and DoRA of rank 32 on all linear layers,
openelm in f32, in bf16 and on weights in Q4_0, PEFT in f32 and with autocast. Each measurement is a process of its own. Medians over the
rounds; they mean something only on a machine with nothing else to do.
"""
import argparse
import json
import shlex
import statistics
import subprocess

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("ours")
parser.add_argument("peer")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--size", default="270M")
parser.add_argument("--rows", type=int, default=4)
parser.add_argument("--time", type=int, default=256)
parser.add_argument("--steps", type=int, default=3)
options = parser.parse_args()

shape = ["--size", options.size, "--steps", str(options.steps)]
ours = [options.ours, *shape, "--rows", str(options.rows), "--time", str(options.time), "--adapter"]
peer = [*shlex.split(options.peer), "lora", *shape, "--batch", str(options.rows), "--seq", str(options.time)]
CASES = {
    "openelm LoRA f32": [*ours, "lora"],
    "openelm LoRA bf16": [*ours, "lora", "--bf16"],
    "openelm LoRA on Q4_0": [*ours, "lora", "--weights", "q4_0"],
    "openelm DoRA f32": [*ours, "dora"],
    "openelm DoRA bf16": [*ours, "dora", "--bf16"],
    "PEFT LoRA f32": [*peer, "--dtype", "f32"],
    "PEFT LoRA autocast": [*peer, "--dtype", "amp"],
    "PEFT DoRA f32": [*peer, "--dtype", "f32", "--dora"],
    "PEFT DoRA autocast": [*peer, "--dtype", "amp", "--dora"],
}
found = {name: [] for name in CASES}
for number in range(options.rounds):
    for name, command in CASES.items():
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        result = next(json.loads(line) for line in printed.splitlines() if line.startswith("{"))
        found[name].append((result["tokens_per_s"], result["peak_gib"]))
        print(f"round {number + 1}: {name}: {result['tokens_per_s']:.1f} tokens/s, {result['peak_gib']:.2f} GiB", flush=True)

medians = {name: tuple(map(statistics.median, zip(*values))) for name, values in found.items()}
for name, (rate, peak) in medians.items():
    print(f"{name}: {rate:.1f} tokens/s, {peak:.2f} GiB")
best = lambda who, what: max(value for name, value in medians.items() if name.startswith(f"{who} {what}") and "Q4_0" not in name)
for what in ["LoRA", "DoRA"]:
    (rate, peak), (peer_rate, peer_peak) = best("openelm", what), best("PEFT", what)
    print(f"{what}: {rate / peer_rate:.2f} times the rate of PEFT, {peak / peer_peak:.2f} of its memory (the faster of each)")
lora = best("openelm", "LoRA")[0]
print(f"of our LoRA's rate: DoRA {best('openelm', 'DoRA')[0] / lora:.2f}, LoRA on Q4_0 {medians['openelm LoRA on Q4_0'][0] / lora:.2f}")

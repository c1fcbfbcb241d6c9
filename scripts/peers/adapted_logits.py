#!/usr/bin/env python3
"""Checks that an adapter written by openelm says in PEFT what it says here.

    python scripts/peers/adapted_logits.py --openelm target/release/openelm MODEL ADAPTER

MODEL is a Hugging Face folder of floats, ADAPTER a folder with adapter_config.json and adapter_model.safetensors, such as a checkpoint
of `openelm tune`. PEFT puts the adapter on a plain PyTorch model (torch_openelm.py beside this file), and its logits are compared with
those of `openelm logits MODEL --adapter ADAPTER`, unmerged and merged. Exit status 1 if they differ by more than 2e-4.

    pip install torch safetensors peft
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import torch
from peft import PeftModel
from safetensors.torch import load_file

import torch_openelm


class Wrapped(torch.nn.Module):
    """The names of Apple's model, whose modules stand below `transformer`."""

    def __init__(self, model):
        super().__init__()
        self.transformer = model

    def forward(self, ids):
        return self.transformer(ids)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--openelm", required=True)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("adapter", type=pathlib.Path)
    options = parser.parse_args()
    config = json.loads((options.model / "config.json").read_text())
    geometry = torch_openelm.geometry_from_config(config)
    model = torch_openelm.OpenELM(geometry)
    weights = load_file(options.model / "model.safetensors")
    model.load_state_dict({name.removeprefix("transformer."): value.float() for name, value in weights.items()}, strict=False)
    ids = [1] + [(i * i * 37 + i * 11) % (config["vocab_size"] - 1) + 1 for i in range(40)]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(ids, file)
        file.flush()
        command = [options.openelm, "logits", options.model, "--adapter", options.adapter, "--ids-file", file.name]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["logits"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted = PeftModel.from_pretrained(Wrapped(model), options.adapter).eval()
    found = torch.tensor(found)
    worst = 0.0
    with torch.no_grad():
        for what in ["unmerged", "merged"]:
            logits = adapted(torch.tensor([ids]))[0]
            difference = (logits - found).abs().max().item()
            worst = max(worst, difference)
            print(f"{what}: logits differ by at most {difference:.2e}")
            if what == "unmerged":
                adapted.merge_adapter()
    sys.exit(0 if worst <= 2e-4 else 1)


if __name__ == "__main__":
    main()

"""Loads an adapter that this project wrote into the real PEFT: python load_adapter.py MODEL ADAPTER

MODEL is a Hugging Face folder, ADAPTER a folder with adapter_config.json. Needs torch, safetensors, peft (0.21.2 was used). The
model's modules are made bare, from the names and shapes of its weights, for PEFT looks at nothing else. Prints the scale that PEFT
gives each module, and fails if PEFT warns, misses a tensor, or reads another value than the file holds.
"""

import sys
import warnings
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file


class Bare(torch.nn.Module):
    """A module with children and nothing else."""

    def child(self, name):
        if not hasattr(self, name):
            self.add_module(name, Bare())
        return getattr(self, name)


def skeleton(weights):
    root = Bare()
    for name, tensor in weights.items():
        *path, _ = name.split(".")
        if tensor.ndim != 2:
            continue
        parent = root
        for part in path[:-1]:
            parent = parent.child(part)
        rows, columns = tensor.shape
        embedding = path[-1] == "token_embeddings"
        module = torch.nn.Embedding(rows, columns) if embedding else torch.nn.Linear(columns, rows, bias=False)
        parent.add_module(path[-1], module)
    return root


model, adapter = map(Path, sys.argv[1:])
with warnings.catch_warnings():
    warnings.simplefilter("error")
    loaded = peft.PeftModel.from_pretrained(skeleton(load_file(model / "model.safetensors")), adapter)
found = peft.get_peft_model_state_dict(loaded)
expected = load_file(adapter / "adapter_model.safetensors")
assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
for name, tensor in expected.items():
    assert torch.equal(found[name].float(), tensor.float()), name
for name, module in loaded.named_modules():
    if getattr(module, "scaling", None):
        print(name.removeprefix("base_model.model."), module.scaling["default"])

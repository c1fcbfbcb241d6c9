#!/usr/bin/env python3
"""Random models of the neighbouring families, a few KiB each, with their logits, as transformers 5 has them.

    python scripts/peers/rivals.py tests/golden/rivals

Each folder holds what `save_pretrained` wrote, and `logits.npz` with `input_ids` `[S, T]` and `logits` `[S, T, V]` in float32.
Needs torch, transformers 5 and numpy. `config_v4.json` is the configuration as transformers 4 wrote it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import (
    LlamaConfig, LlamaForCausalLM, Olmo2Config, Olmo2ForCausalLM, OlmoConfig, OlmoForCausalLM, Qwen2Config, Qwen2ForCausalLM,
)

SIZES = dict(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
    bos_token_id=1, eos_token_id=2, pad_token_id=None,
)


def rope(theta, **scaling):
    return dict(rope_theta=theta, rope_type="default") | scaling


LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)

MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES, num_key_value_heads=4, rms_norm_eps=1e-6, rope_parameters=rope(1e4))),
    "llama3": (LlamaForCausalLM, LlamaConfig(
        **SIZES, num_key_value_heads=2, rms_norm_eps=1e-5, head_dim=16, tie_word_embeddings=True,
        rope_parameters=rope(5e5, **LLAMA3))),
    "llama_linear": (LlamaForCausalLM, LlamaConfig(
        **SIZES, num_key_value_heads=1, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters=rope(1e4, rope_type="linear", factor=2.0))),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(
        **SIZES, num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=True, rope_parameters=rope(1e6))),
    "olmo": (OlmoForCausalLM, OlmoConfig(**SIZES, num_key_value_heads=4, tie_word_embeddings=True, rope_parameters=rope(1e4))),
    "olmo2": (Olmo2ForCausalLM, Olmo2Config(**SIZES, num_key_value_heads=2, rms_norm_eps=1e-6, rope_parameters=rope(5e5))),
}


def version4(config):
    """The keys that transformers 5 writes otherwise."""
    config = dict(config)
    parameters = config.pop("rope_parameters")
    config["torch_dtype"] = config.pop("dtype")
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = None if parameters["rope_type"] == "default" else parameters
    config["transformers_version"] = "4.46.3"
    return config


def main(target):
    for number, (name, (kind, config)) in enumerate(MODELS.items()):
        torch.manual_seed(number)
        model = kind(config).eval()
        for parameter_name, parameter in model.named_parameters():
            # Far from where training begins, so that norms and biases matter.
            scale = 0.3 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5 * 1.5
            base = 1.0 if parameter_name.endswith("norm.weight") else 0.0
            parameter.data.copy_((base + scale * torch.randn_like(parameter)).bfloat16())
        folder = target / name
        # Rounded already: the same numbers in half the bytes.
        kind(config).bfloat16().save_pretrained(folder, state_dict={k: v.bfloat16() for k, v in model.state_dict().items()})
        generation = folder / "generation_config.json"
        generation.unlink(missing_ok=True)
        written = json.loads((folder / "config.json").read_text())
        (folder / "config_v4.json").write_text(json.dumps(version4(written), indent=2, sort_keys=True) + "\n")
        ids = torch.randint(0, config.vocab_size, (2, 24), generator=torch.Generator().manual_seed(7))
        with torch.no_grad():
            logits = model(ids).logits
        np.savez_compressed(folder / "logits.npz", input_ids=ids.numpy().astype(np.int32), logits=logits.numpy())
        print(name, tuple(logits.shape), float(logits.abs().max()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

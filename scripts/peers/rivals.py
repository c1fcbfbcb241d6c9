#!/usr/bin/env python3
"""Random models of the neighbouring families, a few KiB each, with their logits, as transformers 5 has them.

    python scripts/peers/rivals.py tests/golden/rivals [LLAMA_CPP]

Each folder holds what `save_pretrained` wrote, and `logits.npz` with `input_ids` `[S, T]` and `logits` `[S, T, V]` in float32.
`gradients.json` has the mean loss of each next token, and of its gradient by each parameter the length and the inner product with
`cos(0), cos(1), ...`. `config_v4.json` is the configuration as transformers 4 wrote it. With the sources of llama.cpp its `convert_hf_to_gguf.py` makes
`model.gguf` of each, with the tokenizer of `tests/golden/gguf`.
Needs torch, transformers 5 and numpy; for llama.cpp's script also gguf and sentencepiece.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import (
    LlamaConfig, LlamaForCausalLM, Olmo2Config, Olmo2ForCausalLM, OlmoConfig, OlmoForCausalLM, Qwen2Config, Qwen2ForCausalLM,
)

SIZES = dict(
    vocab_size=384, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
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


# Families that llama.cpp expects to have another kind of tokenizer get this one too.
CONVERT = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
from conversion.base import TextModel
TextModel._set_vocab_gpt2 = TextModel._set_vocab_sentencepiece
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0] + "/convert_hf_to_gguf.py", run_name="__main__")
"""


def convert(llama_cpp, folder):
    with tempfile.TemporaryDirectory() as copy:
        source = Path(copy) / "model"
        shutil.copytree(folder, source)
        shutil.copy(Path(__file__).parents[2] / "tests/golden/gguf/tokenizer.model", source)
        target = folder / "model.gguf"
        subprocess.run([sys.executable, "-c", CONVERT, str(llama_cpp), str(source), "--outtype", "bf16", "--outfile", str(target)],
                       check=True, capture_output=True)


def main(target, llama_cpp=None):
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
        state = {key: value.bfloat16() for key, value in model.state_dict().items()}
        if config.tie_word_embeddings:
            del state["lm_head.weight"]
        kind(config).bfloat16().save_pretrained(folder, state_dict=state)
        generation = folder / "generation_config.json"
        generation.unlink(missing_ok=True)
        written = json.loads((folder / "config.json").read_text())
        (folder / "config_v4.json").write_text(json.dumps(version4(written), indent=2, sort_keys=True) + "\n")
        ids = torch.randint(0, config.vocab_size, (2, 16), generator=torch.Generator().manual_seed(7))
        with torch.no_grad():
            logits = model(ids).logits
        np.savez_compressed(folder / "logits.npz", input_ids=ids.numpy().astype(np.int32), logits=logits.numpy())
        loss = model(ids, labels=ids).loss
        loss.backward()
        gradients = {"loss": loss.item()}
        for parameter_name, parameter in model.named_parameters():
            gradient = parameter.grad.double().flatten()
            wave = torch.cos(torch.arange(gradient.numel(), dtype=torch.float64))
            gradients[parameter_name] = [float(gradient.norm()), float(gradient @ wave)]
        (folder / "gradients.json").write_text(json.dumps(gradients, indent=1) + "\n")
        if llama_cpp:
            convert(llama_cpp, folder)
        print(name, tuple(logits.shape), float(logits.abs().max()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

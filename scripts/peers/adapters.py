#!/usr/bin/env python3
"""Adapters of PEFT, mlx-lm and llama.cpp beside those of openelm.

    python scripts/peers/adapters.py make tests/golden
    python scripts/peers/adapters.py check --openelm target/release/openelm MODEL ADAPTER [--gguf MODEL.gguf]

`make` adapts models of tests/golden with random numbers and writes, for each case, what PEFT or mlx-lm saves into
`tests/golden/adapters/CASE`, with `logits.npz`: `input_ids` `[T]` and `logits` `[T, V]` in float32, as that peer has them.

`check` writes ADAPTER with `openelm convert` for each peer, lets the peer load it, and compares its logits with those of
`openelm logits MODEL --adapter ADAPTER`: PEFT and mlx-lm on MODEL, a Hugging Face folder of floats that transformers knows or an
OpenELM, and llama.cpp, if MODEL.gguf is given, beside whose file lies its config.json. Exit status 1 if one differs by more than 1e-3, or refuses.

    pip install torch transformers peft safetensors mlx[cpu] mlx-lm xllamacpp
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np

# How far logits of different arithmetic may lie apart.
TOLERANCE = 1e-3


def token_ids(vocabulary):
    return [1] + [(i * i * 37 + i * 11) % (vocabulary - 1) + 1 for i in range(23)]


def transformers_model(folder):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def openelm_model(folder):
    import torch
    from safetensors.torch import load_file

    import torch_openelm
    from adapted_logits import Wrapped

    model = torch_openelm.OpenELM(torch_openelm.geometry_from_config(json.loads((folder / "config.json").read_text())))
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name.removeprefix("transformer."): value.float() for name, value in weights.items()}, strict=False)
    return Wrapped(model)


def torch_logits(model, ids):
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([ids]))
    return (logits if torch.is_tensor(logits) else logits.logits)[0].numpy()


def torch_model(folder):
    is_openelm = json.loads((folder / "config.json").read_text())["model_type"] == "openelm"
    return openelm_model(folder) if is_openelm else transformers_model(folder)


def with_peft(folder, adapter, ids):
    from peft import PeftModel

    with warnings.catch_warnings():
        # What PEFT says of tensors that it misses is one of these.
        warnings.simplefilter("error", UserWarning)
        model = PeftModel.from_pretrained(torch_model(folder), adapter)
    return torch_logits(model.eval(), ids)


def mlx_model(folder):
    import mlx.core as mx
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    # mlx-lm reads the keys of transformers 4.
    version_4 = folder / "config_v4.json"
    model, _ = load_model(folder, model_config=json.loads(version_4.read_text()) if version_4.exists() else {})
    model.set_dtype(mx.float32)
    return model


def mlx_logits(model, ids):
    import mlx.core as mx

    model.eval()
    return np.array(model(mx.array([ids]))[0].astype(mx.float32))


def with_mlx(folder, adapter, ids):
    from mlx_lm.tuner.utils import load_adapters

    model = mlx_model(folder)
    load_adapters(model, str(adapter))
    return mlx_logits(model, ids)


def with_llama_cpp(model, adapter, ids):
    """Log-probabilities behind each beginning of `ids`."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.n_ctx = 256
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 1
    parameters.cache_type_k = parameters.cache_type_v = 0
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.warmup = False
    parameters.verbosity = -1
    parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    server = xllamacpp.Server(parameters)
    every = vocabulary_of(model.parent)
    rows = []
    for length in range(1, len(ids) + 1):
        asked = dict(prompt=ids[:length], n_predict=1, n_probs=every, logprobs=every, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0,
                     samplers=[], cache_prompt=False, post_sampling_probs=False)
        answer = server.handle_completions(asked)
        answer = json.loads(answer) if isinstance(answer, str) else answer
        answer = answer[0] if isinstance(answer, list) else answer
        said = answer["choices"][0]["logprobs"]
        row = np.full(every, np.nan)
        # Where the token drawn ends the text, nothing is said of it.
        for token in said["content"][0]["top_logprobs"] if said and said.get("content") else []:
            row[token["id"]] = token["logprob"]
        rows.append(row)
    return np.array(rows)


def make_peft(source, target, options):
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(torch_model(source), LoraConfig(**options)).eval()
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_magnitude" in name:
            parameter.data *= 1 + 0.2 * torch.rand_like(parameter)
        elif "lora_" in name:
            parameter.data = 0.2 * torch.randn_like(parameter)
    model.peft_config["default"].base_model_name_or_path = source.name
    model.save_pretrained(target)
    (target / "README.md").unlink(missing_ok=True)
    return torch_logits(model, token_ids(vocabulary_of(source)))


def make_mlx(source, target, dora, parameters):
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_map_with_path
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model = mlx_model(source)
    model.freeze()
    layers = len(model.layers)
    linear_to_lora_layers(model, layers, dict(parameters), use_dora=dora)
    mx.random.seed(5)

    def drawn(path, value):
        name = path.rsplit(".", 1)[-1]
        return value * (1 + 0.2 * mx.random.uniform(shape=value.shape)) if name == "m" else 0.2 * mx.random.normal(value.shape)

    model.update(tree_map_with_path(drawn, model.trainable_parameters()))
    target.mkdir(parents=True)
    mx.save_safetensors(str(target / "adapters.safetensors"), dict(tree_flatten(model.trainable_parameters())))
    parameters = {key: sorted(value) if isinstance(value, set) else value for key, value in parameters.items()}
    config = dict(fine_tune_type="dora" if dora else "lora", lora_parameters=parameters, model=source.name, num_layers=layers)
    (target / "adapter_config.json").write_text(json.dumps(config, indent=4, sort_keys=True) + "\n")
    return mlx_logits(model, token_ids(vocabulary_of(source)))


def vocabulary_of(folder):
    return json.loads((folder / "config.json").read_text())["vocab_size"]


ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make(golden):
    llama, tiny = golden / "rivals/llama3", golden / "tiny/hf"
    some = dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"], rank_pattern={"v_proj": 2},
                alpha_pattern={"layers.1.self_attn.q_proj": 16})
    cases = {
        "peft_lora": lambda target: make_peft(llama, target, some),
        "peft_rslora": lambda target: make_peft(llama, target, dict(r=2, lora_alpha=6, target_modules=ALL, use_rslora=True)),
        "peft_dora": lambda target: make_peft(llama, target, dict(r=2, lora_alpha=4, target_modules=ALL, use_dora=True)),
        "mlx_lora": lambda target: make_mlx(llama, target, False, dict(rank=4, scale=3.0, dropout=0.0, keys={
            "self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"})),
        "mlx_dora": lambda target: make_mlx(llama, target, True, dict(rank=2, scale=2.0, dropout=0.0)),
        "mlx_openelm": lambda target: make_mlx(tiny, target, False, dict(rank=4, scale=3.0, dropout=0.1)),
        "mlx_openelm_dora": lambda target: make_mlx(tiny, target, True, dict(rank=2, scale=2.0, dropout=0.1)),
    }
    for name, write in cases.items():
        target = golden / "adapters" / name
        logits = write(target)
        source = tiny if "openelm" in name else llama
        ids = np.array(token_ids(vocabulary_of(source)), dtype=np.int32)
        np.savez_compressed(target / "logits.npz", input_ids=ids, logits=logits.astype(np.float32))
        print(name, logits.shape, float(np.abs(logits).max()))


def run(*words):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def log_softmax(logits):
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


def check(options):
    ids = token_ids(vocabulary_of(options.model))
    words = ",".join(map(str, ids))

    def ours(model):
        printed = run(options.openelm, "logits", model, "--exact", "--ids", words, "--adapter", options.adapter)
        return np.array(json.loads(printed)["logits"], dtype=np.float32)

    peers = {"hf": ("PEFT", with_peft, options.model), "mlx": ("mlx-lm", with_mlx, options.model)}
    if options.gguf:
        peers["gguf"] = ("llama.cpp", with_llama_cpp, options.gguf)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for form, (name, logits, model) in peers.items():
            written = pathlib.Path(folder) / ("adapter.gguf" if form == "gguf" else form)
            try:
                run(options.openelm, "convert", options.model, written, "--to", form, "--adapter", options.adapter)
            except subprocess.CalledProcessError as error:
                print(f"{name}: {error.stderr.strip()}")
                continue
            expected, found = ours(model), logits(model, written, ids)
            known = ~np.isnan(found).any(-1)
            # Shifted by the same number everywhere, logits say the same.
            difference = float(np.abs(log_softmax(expected[known]) - log_softmax(found[known])).max())
            moved = float(np.abs(log_softmax(expected) - log_softmax(base(options.openelm, model, words))).max())
            print(f"{name}: log-probabilities differ by at most {difference:.2e}; the adapter moves them by up to {moved:.2f}")
            failed |= not difference <= TOLERANCE
    sys.exit(1 if failed else 0)


def base(openelm, model, words):
    return np.array(json.loads(run(openelm, "logits", model, "--exact", "--ids", words))["logits"], dtype=np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    maker = modes.add_parser("make")
    maker.add_argument("golden", type=pathlib.Path)
    checker = modes.add_parser("check")
    checker.add_argument("--openelm", required=True)
    checker.add_argument("--gguf", type=pathlib.Path)
    checker.add_argument("model", type=pathlib.Path)
    checker.add_argument("adapter", type=pathlib.Path)
    options = parser.parse_args()
    make(options.golden) if options.mode == "make" else check(options)


if __name__ == "__main__":
    main()

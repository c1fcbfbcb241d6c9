#!/usr/bin/env python3
"""Checks that models written by openelm load in the tools they are meant for and say the same there.

    python scripts/peers/check.py --openelm target/release/openelm MODEL...

For each MODEL the peer that its format is meant for loads it, and its greedy tokens behind a prompt are compared with those
of `openelm generate --greedy`:

    Hugging Face folder    safetensors + PyTorch (torch_openelm.py beside this file, a plain PyTorch model);
                           transformers for other families than OpenELM
    CoreNet folder         torch.load(weights_only=True) + the same model
    MLX folder             mlx-lm: mlx_lm.load and its generate_step
    GGUF file              llama.cpp through llama-cpp-python, and the Python package gguf

Another model than torch_openelm.py can be given with --torch-model: a file with `geometry_from_config(config)`, the keys as in
config.json, and a module `OpenELM(geometry)` with CoreNet's parameter names.
Where greedy tokens part, the peer's own margin between the two tokens is printed: peers that compute in half precision or
with quantised activations may part where it is near zero. Exit status 0 if all tokens agree, 1 otherwise.

    pip install torch safetensors transformers mlx[cpu] mlx-lm gguf llama-cpp-python
"""
import argparse
import importlib.metadata
import importlib.util
import json
import pathlib
import subprocess
import sys


def run_openelm(openelm, *arguments):
    return json.loads(subprocess.run([openelm, *arguments], check=True, capture_output=True, text=True).stdout)


def version(package):
    return f"{package} {importlib.metadata.version(package)}"


def greedy(next_logits, prompt, count):
    """Tokens that `next_logits(ids)` makes one by one, and the logits behind each prefix."""
    ids, rows = list(prompt), []
    for _ in range(count):
        rows.append(next_logits(ids))
        ids.append(int(rows[-1].argmax()))
    return ids[len(prompt):], rows


def sentencepiece_ids(folder, options):
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode(options.prompt, add_bos=True)


def torch_peer(options, tensors, config):
    import torch

    torch.set_num_threads(options.threads)
    spec = importlib.util.spec_from_file_location("torch_model", options.torch_model)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.OpenELM(module.geometry_from_config(config))
    model.load_state_dict({name: value.float() for name, value in tensors.items()})

    @torch.no_grad()
    def next_logits(ids):
        return model(torch.tensor([ids]))[0, -1].numpy()

    return next_logits


def transformers_peer(folder, options, prompt):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(options.threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    @torch.no_grad()
    def next_logits(ids):
        return model(torch.tensor([ids])).logits[0, -1].numpy()

    return [version("transformers")], sentencepiece_ids(folder, options), *greedy(next_logits, prompt, options.tokens)


def hugging_face(folder, options, prompt, inspected):
    from safetensors.torch import load_file

    if inspected["geometry"]["family"] != "openelm":
        return transformers_peer(folder, options, prompt)

    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors.update({name.removeprefix("transformer."): value for name, value in load_file(file).items()})
    if "lm_head.weight" in tensors:
        tensors["classifier.weight"] = tensors.pop("lm_head.weight")
    next_logits = torch_peer(options, tensors, json.loads((folder / "config.json").read_text()))
    versions = [version("safetensors"), version("torch")]
    return versions, sentencepiece_ids(folder, options), *greedy(next_logits, prompt, options.tokens)


def corenet(folder, options, prompt, inspected):
    import torch

    tensors = torch.load(folder / "checkpoint_average.pt", map_location="cpu", weights_only=True)
    sizes = inspected["geometry"]
    config = dict(model_dim=sizes["model_dim"], head_dim=sizes["head_dim"], vocab_size=sizes["vocab_size"],
                  num_query_heads=sizes["query_heads"], num_kv_heads=sizes["kv_heads"], ffn_dims=sizes["ffn_dims"],
                  ffn_with_glu=sizes["ffn_glu"], normalize_qk_projections=sizes["qk_norm"],
                  share_input_output_layers=sizes["tied_embeddings"], rope_freq_constant=sizes["rope_theta"])
    next_logits = torch_peer(options, tensors, config)
    return [version("torch")], sentencepiece_ids(folder, options), *greedy(next_logits, prompt, options.tokens)


def mlx(folder, options, prompt, _):
    import mlx.core as mx
    import mlx_lm
    import numpy
    from mlx_lm.generate import generate_step

    model, tokenizer = mlx_lm.load(str(folder))
    ids, rows = [], []
    for token, logprobs in generate_step(mx.array(prompt), model, max_tokens=options.tokens):
        ids.append(int(token))
        rows.append(numpy.array(logprobs.astype(mx.float32)))
    return [version("mlx"), version("mlx-lm")], tokenizer.encode(options.prompt), ids, rows


def llama_cpp(file, options, prompt, _):
    import gguf
    import llama_cpp as binding

    tensors = len(gguf.GGUFReader(file).tensors)
    model = binding.Llama(str(file), n_ctx=512, n_threads=options.threads, n_batch=512, logits_all=True, verbose=False)

    def next_logits(ids):
        model.eval(ids[model.n_tokens:])
        return model.scores[model.n_tokens - 1].copy()

    theirs = model.tokenize(options.prompt.encode(), add_bos=True)
    versions = [f"llama-cpp-python {binding.__version__}", f"{version('gguf')} reads {tensors} tensors"]
    return versions, theirs, *greedy(next_logits, prompt, options.tokens)


PEERS = {"Hugging Face": hugging_face, "CoreNet": corenet, "MLX": mlx, "GGUF": llama_cpp}


def check(path, options):
    """One line of the table, and whether all agrees."""
    inspected = run_openelm(options.openelm, "inspect", str(path), "--json")
    ours = run_openelm(options.openelm, "generate", options.prompt, "--model", str(path), "--greedy", "--ignore-eos",
                       "-n", str(options.tokens), "--json", *["--exact"] * options.exact)
    versions, prompt_ids, ids, rows = PEERS[inspected["format"]](path, options, ours["prompt_ids"], inspected)
    parted = next((i for i, (a, b) in enumerate(zip(ours["ids"], ids)) if a != b), None)
    if parted is None:
        verdict = f"all {len(ids)} tokens"
    else:
        row = rows[parted]
        margin = float(row[ids[parted]] - row[ours["ids"][parted]])
        verdict = f"{parted} of {len(ids)} tokens, then a margin of {margin:.4f}"
    same_prompt = list(prompt_ids) == ours["prompt_ids"]
    largest = max(inspected["encodings"], key=lambda entry: entry["elements"])["encoding"]
    line = [path.name, inspected["format"], largest, ", ".join(versions), verdict, "yes" if same_prompt else "no"]
    return line, parted is None and same_prompt


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=pathlib.Path, metavar="MODEL", help="written by openelm")
    parser.add_argument("--openelm", default="openelm", help="the command [default: the one in PATH]")
    parser.add_argument("--torch-model", default=str(pathlib.Path(__file__).with_name("torch_openelm.py")), metavar="FILE",
                        help="the plain PyTorch model [default: torch_openelm.py beside this file]")
    parser.add_argument("--prompt", default="Once upon a time there was a little rabbit")
    parser.add_argument("--tokens", type=int, default=64, help="greedy tokens to compare [default: 64]")
    parser.add_argument("--exact", action="store_true", help="ours with weights widened to f32")
    parser.add_argument("--threads", type=int, default=1, help="threads of the peers [default: 1]")
    options = parser.parse_args()
    print("| model | format | mostly | peer | same greedy tokens | same prompt ids |\n|---|---|---|---|---|---|")
    agreed = True
    for path in options.models:
        line, agrees = check(path, options)
        print("| " + " | ".join(line) + " |", flush=True)
        agreed &= agrees
    sys.exit(0 if agreed else 1)


if __name__ == "__main__":
    main()

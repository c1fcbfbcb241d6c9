#!/usr/bin/env python3
"""OpenELM in plain PyTorch: what check.py compares with, and the peer of the benchmark side_by_side.

    python torch_openelm.py train   --size 270M  --batch 4 --seq 256 [--steps 5]
    python torch_openelm.py prefill --size 270M  --seq 512
    python torch_openelm.py decode  --size small --tokens 64

Prints one JSON object with the median of tokens per second. `small`: 8 layers, width 256, heads of 64 in groups of 2, feed-forward
multipliers from 0.5 to 4, a vocabulary of 4096.

    pip install torch
"""
import argparse
import json
import statistics
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Geometry:
    """Widths of a model; query heads, key/value heads and feed-forward widths are lists, one entry per layer."""

    dim: int
    head: int
    vocabulary: int
    queries: list
    keys: list
    ffn: list
    theta: float = 10000.0
    gated: bool = True
    activation: str = "swish"
    normalised: bool = True
    tied: bool = True


def make_divisible(value, divisor):
    """The multiple of `divisor` nearest to `value`, but not below nine tenths of it."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def geometry_from_config(config):
    """By the keys of config.json; `ffn_dims` may say the widths themselves."""
    dim = config["model_dim"]
    ffn = config.get("ffn_dims") or [make_divisible(m * dim, config["ffn_dim_divisor"]) for m in config["ffn_multipliers"]]
    return Geometry(dim, config["head_dim"], config["vocab_size"], config["num_query_heads"], config["num_kv_heads"], ffn,
                    float(config["rope_freq_constant"]), config["ffn_with_glu"], config.get("activation_fn_name", "swish"),
                    config["normalize_qk_projections"], config["share_input_output_layers"])


def released(size):
    layers, dim, head, group, vocabulary = {
        "270M": (16, 1280, 64, 4, 32000), "450M": (20, 1536, 64, 4, 32000), "1.1B": (28, 2048, 64, 4, 32000),
        "3B": (36, 3072, 128, 4, 32000), "small": (8, 256, 64, 2, 4096),
    }[size]
    depths = [i / (layers - 1) for i in range(layers)]
    ffn = [make_divisible(round(0.5 + 3.5 * depth, 2) * dim, 256) for depth in depths]
    queries = [make_divisible(round(0.5 + 0.5 * depth, 2) * dim, head * group) // head for depth in depths]
    return Geometry(dim, head, vocabulary, queries, [count // group for count in queries], ffn)


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return F.rms_norm(x.float(), self.weight.shape, eps=1e-6).type_as(x) * self.weight


def rotated(x, start, theta):
    """Rotary positions of `x` [batch, heads, time, head] from `start` on; the halves of a head are the pairs."""
    half = x.shape[-1] // 2
    frequencies = theta ** (torch.arange(half) / -half)
    angles = torch.arange(start, start + x.shape[2])[:, None] * frequencies
    turn = torch.polar(torch.ones_like(angles), angles)
    pairs = torch.complex(x[..., :half].float(), x[..., half:].float()) * turn
    return torch.cat((pairs.real, pairs.imag), -1).type_as(x)


class Attention(nn.Module):
    def __init__(self, geometry, layer):
        super().__init__()
        self.heads = geometry.queries[layer], geometry.keys[layer], geometry.keys[layer]
        self.head, self.theta = geometry.head, geometry.theta
        self.qkv_proj = nn.Linear(geometry.dim, sum(self.heads) * self.head, bias=False)
        self.out_proj = nn.Linear(self.heads[0] * self.head, geometry.dim, bias=False)
        if geometry.normalised:
            self.q_norm, self.k_norm = RMSNorm(self.head), RMSNorm(self.head)
        else:
            self.q_norm = self.k_norm = nn.Identity()

    def forward(self, x, cache):
        batch, time, _ = x.shape
        q, k, v = self.qkv_proj(x).view(batch, time, -1, self.head).transpose(1, 2).split(self.heads, 1)
        start = cache[0].shape[2] if cache else 0
        q, k = rotated(self.q_norm(q), start, self.theta), rotated(self.k_norm(k), start, self.theta)
        if cache:
            k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
        if cache is not None:
            cache[:] = k, v
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=time > 1, enable_gqa=True)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, geometry, layer):
        super().__init__()
        self.gated = geometry.gated
        self.activation = F.silu if geometry.activation in ("swish", "silu") else F.gelu
        self.proj_1 = nn.Linear(geometry.dim, (1 + self.gated) * geometry.ffn[layer], bias=False)
        self.proj_2 = nn.Linear(geometry.ffn[layer], geometry.dim, bias=False)

    def forward(self, x):
        first = self.proj_1(x)
        if not self.gated:
            return self.proj_2(self.activation(first))
        gate, up = first.chunk(2, -1)
        return self.proj_2(self.activation(gate) * up)


class Block(nn.Module):
    def __init__(self, geometry, layer):
        super().__init__()
        self.attn_norm, self.attn = RMSNorm(geometry.dim), Attention(geometry, layer)
        self.ffn_norm, self.ffn = RMSNorm(geometry.dim), FeedForward(geometry, layer)

    def forward(self, x, cache):
        x = x + self.attn(self.attn_norm(x), cache)
        return x + self.ffn(self.ffn_norm(x))


class OpenELM(nn.Module):
    """Logits [batch, time, vocabulary] of ids [batch, time]. With caches, a list for each layer, ids may come one by one."""

    def __init__(self, geometry):
        super().__init__()
        self.token_embeddings = nn.Embedding(geometry.vocabulary, geometry.dim)
        self.layers = nn.ModuleList(Block(geometry, layer) for layer in range(len(geometry.ffn)))
        self.norm = RMSNorm(geometry.dim)
        self.classifier = None if geometry.tied else nn.Linear(geometry.dim, geometry.vocabulary, bias=False)

    def forward(self, ids, caches=None):
        x = self.token_embeddings(ids)
        for block, cache in zip(self.layers, caches or [None] * len(self.layers)):
            x = block(x, cache)
        return F.linear(self.norm(x), (self.classifier or self.token_embeddings).weight)


def random_model(geometry):
    torch.manual_seed(0)
    model = OpenELM(geometry)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model


def training(options, geometry, model):
    """Seconds of an update as a recipe of ours makes it."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    while True:
        ids = torch.randint(geometry.vocabulary, (options.batch, options.seq + 1))
        begin = time.perf_counter()
        logits = model(ids[:, :-1]).flatten(0, 1)
        loss = F.cross_entropy(logits, ids[:, 1:].flatten()) + 1e-4 * logits.logsumexp(-1).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        yield time.perf_counter() - begin


@torch.inference_mode()
def prefilling(options, geometry, model):
    while True:
        ids = torch.randint(geometry.vocabulary, (1, options.seq))
        begin = time.perf_counter()
        model(ids)
        yield time.perf_counter() - begin


@torch.inference_mode()
def decoding(options, geometry, model):
    while True:
        caches = [[] for _ in model.layers]
        ids = torch.zeros(1, 1, dtype=torch.long)
        begin = time.perf_counter()
        for _ in range(options.tokens):
            ids = model(ids, caches)[:, -1:].argmax(-1)
        yield time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["train", "prefill", "decode"])
    parser.add_argument("--size", default="270M", choices=["small", "270M", "450M", "1.1B", "3B"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5, help="measured, behind two to warm up [default: 5]")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    geometry = released(options.size)
    tokens, steps = {
        "train": (options.batch * options.seq, training),
        "prefill": (options.seq, prefilling),
        "decode": (options.tokens, decoding),
    }[options.step]
    seconds = [second for _, second in zip(range(options.steps + 2), steps(options, geometry, random_model(geometry)))]
    rate = tokens / statistics.median(seconds[2:])
    print(json.dumps({"step": options.step, "size": options.size, "tokens_per_s": round(rate, 2), "torch": torch.__version__}))


if __name__ == "__main__":
    main()

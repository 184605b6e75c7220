#!/usr/bin/env python3
"""Run a model slowly and exactly: every weight decoded, every operation in 64-bit floats.

    tools/reference.py MODEL.gguf --answers models.json > exact.json

For each prompt of the model in models.json, prints the logits of the tokens listed there as exact arithmetic
gives them. Engines quantize activations to 8 bits, each in its own way; this says how far that takes them,
and where a difference between two engines comes from. Short prompts only: windows are not applied.

Needs: pip install gguf==0.19.0 numpy
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize


class Model:
    def __init__(self, path):
        reader = GGUFReader(path)
        self.metadata = {field.name: field.contents() for field in reader.fields.values()}
        self.architecture = self.metadata["general.architecture"]
        self.gemma = self.architecture == "gemma3"
        if self.architecture not in ("llama", "gemma3"):
            sys.exit(f"no reference for architecture {self.architecture}")
        self.weights = {
            t.name: dequantize(t.data, t.tensor_type).astype(np.float64).reshape([int(n) for n in t.shape[::-1]])
            for t in reader.tensors
        }
        self.n_layers = self.key("block_count")
        self.n_embd = self.key("embedding_length")
        self.n_head = self.key("attention.head_count")
        self.n_head_kv = self.key("attention.head_count_kv")
        self.head_dim = self.key("attention.key_length", self.n_embd // self.n_head)
        self.eps = self.key("attention.layer_norm_rms_epsilon")

    def key(self, name, default=None):
        return self.metadata.get(f"{self.architecture}.{name}", default)

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.weights[name]

    def product(self, x, name):
        return x @ self.weights[name].T

    def rotate(self, x, base):
        n_rows, _, length = x.shape
        angles = np.arange(n_rows)[:, None, None] * base ** (-2.0 * np.arange(length // 2) / length)
        pairs = np.s_[..., 0::2], np.s_[..., 1::2]
        if self.gemma:
            pairs = np.s_[..., : length // 2], np.s_[..., length // 2 :]
        a, b = x[pairs[0]], x[pairs[1]]
        out = x.copy()
        out[pairs[0]] = a * np.cos(angles) - b * np.sin(angles)
        out[pairs[1]] = a * np.sin(angles) + b * np.cos(angles)
        return out

    def attention(self, x, layer):
        prefix, n_rows = f"blk.{layer}", len(x)
        heads = lambda name, n: self.product(x, f"{prefix}.{name}.weight").reshape(n_rows, n, self.head_dim)
        q, k, v = heads("attn_q", self.n_head), heads("attn_k", self.n_head_kv), heads("attn_v", self.n_head_kv)
        base = self.key("rope.freq_base", 10000.0)
        if self.gemma:
            q, k = self.norm(q, f"{prefix}.attn_q_norm.weight"), self.norm(k, f"{prefix}.attn_k_norm.weight")
            base = base if (layer + 1) % 6 == 0 else 10000.0
        q, k = self.rotate(q, base), self.rotate(k, base)
        out = np.zeros_like(q)
        for head in range(self.n_head):
            shared = head // (self.n_head // self.n_head_kv)
            scores = q[:, head] @ k[:, shared].T / np.sqrt(self.head_dim)
            scores[np.triu_indices(n_rows, 1)] = -np.inf
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, head] = shares / shares.sum(-1, keepdims=True) @ v[:, shared]
        return self.product(out.reshape(n_rows, -1), f"{prefix}.attn_output.weight")

    def feed_forward(self, x, layer):
        prefix = f"blk.{layer}"
        gate = self.product(x, f"{prefix}.ffn_gate.weight")
        if self.gemma:
            gate = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        else:
            gate = gate / (1 + np.exp(-gate))
        return self.product(gate * self.product(x, f"{prefix}.ffn_up.weight"), f"{prefix}.ffn_down.weight")

    def last_logits(self, tokens):
        if len(tokens) > self.key("attention.sliding_window", len(tokens)):
            sys.exit("the prompt is longer than the window")
        hidden = self.weights["token_embd.weight"][tokens] * (np.sqrt(self.n_embd) if self.gemma else 1)
        for layer in range(self.n_layers):
            prefix = f"blk.{layer}"
            update = self.attention(self.norm(hidden, f"{prefix}.attn_norm.weight"), layer)
            if self.gemma:
                update = self.norm(update, f"{prefix}.post_attention_norm.weight")
            hidden = hidden + update
            update = self.feed_forward(self.norm(hidden, f"{prefix}.ffn_norm.weight"), layer)
            if self.gemma:
                update = self.norm(update, f"{prefix}.post_ffw_norm.weight")
            hidden = hidden + update
        last = self.norm(hidden[-1], "output_norm.weight")
        return self.product(last, "output.weight" if "output.weight" in self.weights else "token_embd.weight")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--answers", required=True, help="models.json of the oracles")
    args = parser.parse_args()
    answers = json.loads(Path(args.answers).read_text())
    exact = {}
    for path in args.models:
        model, name = Model(path), Path(path).name
        exact[name] = [
            [[token, round(float(logits[token]), 4)] for token, _ in answer["last_logits_top20"]]
            for answer in answers[name]
            for logits in [model.last_logits(answer["tokens"])]
        ]
    lines = [f' "{name}": [\n' + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n ]" for name, rows in exact.items()]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Run a model slowly and exactly: every weight decoded, every operation in 64-bit floats.

    tools/reference.py MODEL.gguf --answers models.json > exact.json
    tools/reference.py MODEL.gguf --tokens 1,2,3 [--context 4096] --out logits.f32

The first prints, for each prompt of the model in models.json, the logits of the tokens listed there as exact
arithmetic gives them. Engines quantize activations to 8 bits, each in its own way; this says how far that takes
them, and where a difference between two engines comes from. The second writes the logits of every position, for
the tests: windows that slide, positions beyond the original context, states that have read much. It is written
from the papers and knows nothing of the engine's ways: it attends to all positions at once, expands what is
compressed, and reads states position by position.

Needs: pip install gguf==0.19.0 numpy
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

# What sets an architecture apart from Llama. `pattern`: every n-th layer sees all positions, the others a window.
ARCHITECTURES = {
    "llama": {},
    "mistral3": {},
    "cohere2": {"norm": "layer", "parallel": True, "pattern": 4, "rotate": "windowed"},
    "deepseek2": {"mixer": "latent", "normed_shares": False},
    "gemma2": {"halves": True, "gelu": True, "scaled": True, "post": True, "pattern": 2, "caps": (50.0, 30.0)},
    "gemma3": {"halves": True, "gelu": True, "scaled": True, "post": True, "pattern": 6, "local_base": 10000.0},
    "mamba2": {"mixer": "mamba2", "ffn": False},
    "olmo2": {"halves": True, "bare": True, "post": True, "pattern": 4, "local_base": None},
    "phi3": {"halves": True, "merged": True, "pattern": 0},
    "qwen35": {"halves": True, "ffn_norm": "post_attention_norm", "gated": True, "mixer": "delta"},
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    shares = np.exp(x - x.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


class Model:
    def __init__(self, path, n_ctx=None):
        reader = GGUFReader(path)
        self.metadata = {field.name: field.contents() for field in reader.fields.values()}
        self.architecture = self.metadata["general.architecture"]
        if self.architecture not in ARCHITECTURES:
            sys.exit(f"no reference for architecture {self.architecture}")
        self.kind = ARCHITECTURES[self.architecture]
        self.weights = {
            t.name: dequantize(t.data, t.tensor_type).astype(np.float64).reshape([int(n) for n in t.shape[::-1]])
            for t in reader.tensors
        }
        self.n_layers = self.key("block_count")
        self.n_embd = self.key("embedding_length")
        self.n_ctx = n_ctx or self.key("context_length")
        self.eps = self.key("attention.layer_norm_rms_epsilon", self.key("attention.layer_norm_epsilon"))

    def key(self, name, default=None):
        return self.metadata.get(f"{self.architecture}.{name}", default)

    def heads(self, layer):
        count = self.key("attention.head_count")
        return count[layer] if isinstance(count, list) else count

    def norm(self, x, name):
        if self.kind.get("norm") == "layer":
            x = x - x.mean(-1, keepdims=True)
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias", 0)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * weight + bias

    def product(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0)

    def windowed(self, layer):
        pattern, default = self.key("attention.sliding_window_pattern"), self.kind.get("pattern")
        if not self.key("attention.sliding_window") or default is None:
            return False
        if isinstance(pattern, list):
            return bool(pattern[layer])
        pattern = default if pattern is None else pattern
        return pattern == 0 or (layer + 1) % pattern != 0

    def frequencies(self, layer, n_rot):
        """Radians a position, and the factor of cosines and sines."""
        base, factor = self.key("rope.freq_base", 10000.0), self.key("rope.scaling.factor", 0.0)
        kind, magnitude = self.key("rope.scaling.type", "linear"), self.key("rope.scaling.attn_factor", 1.0)
        frequencies = base ** (-2.0 * np.arange(n_rot // 2) / n_rot)
        if self.windowed(layer) and "local_base" in self.kind:
            local = self.kind["local_base"]
            return (frequencies if local is None else local ** (-2.0 * np.arange(n_rot // 2) / n_rot)), 1.0
        original = self.key("rope.scaling.original_context_length", self.key("context_length"))
        if "rope_freqs.weight" in self.weights:
            frequencies = frequencies / self.weights["rope_freqs.weight"]
        elif "rope_factors_long.weight" in self.weights:
            length = "long" if self.n_ctx > original else "short"
            frequencies = frequencies / self.weights[f"rope_factors_{length}.weight"]
        if factor in (0.0, 1.0) or kind in ("none", "longrope"):
            return frequencies, magnitude
        if kind == "linear":
            return frequencies / factor, magnitude
        # YaRN: pairs that turn often enough within the original context keep their frequency.
        turns = original * frequencies / (2 * np.pi)
        fast, slow = self.key("rope.scaling.yarn_beta_fast", 32.0), self.key("rope.scaling.yarn_beta_slow", 1.0)
        pair = lambda n: n_rot * np.log(original / (n * 2 * np.pi)) / (2 * np.log(base))
        low, high = max(np.floor(pair(fast)), 0), min(np.ceil(pair(slow)), n_rot - 1)
        kept = 1 - np.clip((np.arange(len(turns)) - low) / max(high - low, 0.001), 0, 1)
        growth, multiplier = np.log(factor), self.key("rope.scaling.yarn_log_multiplier", 0.0)
        if self.kind.get("mixer") == "latent":
            multiplier = 1.0 if multiplier else 0.0
        magnitude = magnitude * (1 + 0.1 * growth) / (1 + 0.1 * multiplier * growth)
        return frequencies * (kept + (1 - kept) / factor), magnitude

    def rotate(self, x, layer, n_rot):
        """Of rows of heads, the first values."""
        frequencies, magnitude = self.frequencies(layer, n_rot)
        angles = np.arange(len(x))[:, None, None] * frequencies
        pairs = np.s_[..., 0:n_rot:2], np.s_[..., 1:n_rot:2]
        if self.kind.get("halves"):
            pairs = np.s_[..., : n_rot // 2], np.s_[..., n_rot // 2 : n_rot]
        a, b, out = x[pairs[0]], x[pairs[1]], x.copy()
        out[pairs[0]] = (a * np.cos(angles) - b * np.sin(angles)) * magnitude
        out[pairs[1]] = (a * np.sin(angles) + b * np.cos(angles)) * magnitude
        return out

    def attend(self, q, k, v, layer, scale):
        """Rows of heads; keys and values may have fewer heads."""
        distance = np.arange(len(q))[:, None] - np.arange(len(q))
        hidden = distance < 0
        if self.windowed(layer):
            hidden |= distance >= self.key("attention.sliding_window")
        out = np.zeros((len(q), q.shape[1], v.shape[2]))
        for head in range(q.shape[1]):
            shared = head // (q.shape[1] // k.shape[1])
            scores = q[:, head] @ k[:, shared].T * scale
            if "caps" in self.kind:
                cap = self.key("attn_logit_softcapping", self.kind["caps"][0])
                scores = cap * np.tanh(scores / cap)
            scores[hidden] = -np.inf
            out[:, head] = softmax(scores) @ v[:, shared]
        return out

    def temperature(self, n_rows):
        scale = self.key("attention.temperature_scale", 0.0)
        length = self.key("rope.scaling.original_context_length", self.key("context_length"))
        return 1 + scale * np.log(1 + np.arange(n_rows) // length)

    def attention(self, x, layer):
        prefix, n_rows, n_head = f"blk.{layer}", len(x), self.heads(layer)
        length = self.key("attention.key_length", self.n_embd // n_head)
        q, k, v = (
            self.product(x, f"{prefix}.attn_{name}").reshape(n_rows, -1, length * (2 if gated else 1))
            for name, gated in [("q", self.kind.get("gated")), ("k", False), ("v", False)]
        )
        q, gate = q[..., :length], q[..., length:]
        if self.architecture == "olmo2":
            q, k = (
                self.norm(x.reshape(n_rows, -1), f"{prefix}.attn_{name}_norm").reshape(x.shape)
                for name, x in [("q", q), ("k", k)]
            )
        elif f"{prefix}.attn_q_norm.weight" in self.weights:
            q, k = self.norm(q, f"{prefix}.attn_q_norm"), self.norm(k, f"{prefix}.attn_k_norm")
        if self.kind.get("rotate") != "windowed" or self.windowed(layer):
            n_rot = self.key("rope.dimension_count", length)
            q, k = self.rotate(q, layer, n_rot), self.rotate(k, layer, n_rot)
        out = self.attend(q * self.temperature(n_rows)[:, None, None], k, v, layer, length**-0.5)
        if self.kind.get("gated"):
            out = out * sigmoid(gate)
        return self.product(out.reshape(n_rows, -1), f"{prefix}.attn_output")

    def latent(self, x, layer):
        """DeepSeek-V2's attention as the paper first writes it: keys and values of every head are made."""
        prefix, n_rows, n_head = f"blk.{layer}", len(x), self.heads(layer)
        rank, length, n_rot = (
            self.key(name)
            for name in ("attention.kv_lora_rank", "attention.key_length_mla", "rope.dimension_count")
        )
        if f"{prefix}.attn_q_a.weight" in self.weights:
            q = self.product(self.norm(self.product(x, f"{prefix}.attn_q_a"), f"{prefix}.attn_q_a_norm"), f"{prefix}.attn_q_b")
        else:
            q = self.product(x, f"{prefix}.attn_q")
        q = q.reshape(n_rows, n_head, length)
        both = self.product(x, f"{prefix}.attn_kv_a_mqa")
        vector = self.norm(both[:, :rank], f"{prefix}.attn_kv_a_norm")
        rotated = self.rotate(both[:, None, rank:], layer, n_rot)
        # Of each head: (rank, rest of a key), stored transposed, and (value, rank).
        key_up, value_up = (
            self.weights[f"{prefix}.attn_{name}_b.weight"].reshape(n_head, *shape)
            for name, shape in [("k", (rank, length - n_rot)), ("v", (-1, rank))]
        )
        k = np.concatenate([np.einsum("tr,hrn->thn", vector, key_up), rotated.repeat(n_head, 1)], -1)
        v = np.einsum("tr,hvr->thv", vector, value_up)
        nope = length - n_rot
        q = np.concatenate([q[..., :nope], self.rotate(q[..., nope:], layer, n_rot)], -1)
        scale, multiplier = length**-0.5, self.key("rope.scaling.yarn_log_multiplier", 0.0)
        if self.key("rope.scaling.type") == "yarn":
            scale *= (1 + multiplier * np.log(self.key("rope.scaling.factor"))) ** 2
        return self.product(self.attend(q, k, v, layer, scale).reshape(n_rows, -1), f"{prefix}.attn_output")

    def convolution(self, x, layer):
        kernel = self.weights[f"blk.{layer}.ssm_conv1d.weight"]
        n = kernel.shape[1]
        padded = np.concatenate([np.zeros((n - 1, x.shape[1])), x])
        out = sum(padded[i : i + len(x)] * kernel[:, i] for i in range(n))
        return silu(out + self.weights.get(f"blk.{layer}.ssm_conv1d.bias", 0))

    def mamba2(self, x, layer):
        prefix, n_rows = f"blk.{layer}", len(x)
        inner, n_head, n_group, n_state = (
            self.key(f"ssm.{name}") for name in ("inner_size", "time_step_rank", "group_count", "state_size")
        )
        z, mixed, dt = np.split(self.product(x, f"{prefix}.ssm_in"), [inner, 2 * inner + 2 * n_group * n_state], -1)
        values, b, c = np.split(self.convolution(mixed, layer), [inner, inner + n_group * n_state], -1)
        values = values.reshape(n_rows, n_head, -1)
        b, c = (part.reshape(n_rows, n_group, n_state).repeat(n_head // n_group, 1) for part in (b, c))
        dt = np.log1p(np.exp(dt + self.weights[f"{prefix}.ssm_dt.bias"]))
        a, d = (self.weights[f"{prefix}.ssm_{name}"].reshape(-1, 1) for name in "ad")
        state, out = np.zeros((n_head, values.shape[2], n_state)), np.zeros_like(values)
        for row in range(n_rows):
            step = dt[row][:, None]
            state = state * np.exp(a * step)[..., None] + (values[row] * step)[..., None] * b[row][:, None]
            out[row] = (state * c[row][:, None]).sum(-1) + d * values[row]
        out = (out.reshape(n_rows, inner) * silu(z)).reshape(n_rows, n_group, -1)
        return self.product(self.norm(out, f"{prefix}.ssm_norm").reshape(n_rows, inner), f"{prefix}.ssm_out")

    def delta(self, x, layer):
        prefix, n_rows = f"blk.{layer}", len(x)
        if f"{prefix}.attn_q.weight" in self.weights:
            return self.attention(x, layer)
        n_head, n_key, length = (self.key(f"ssm.{name}") for name in ("time_step_rank", "group_count", "state_size"))
        mixed = self.convolution(self.product(x, f"{prefix}.attn_qkv"), layer)
        q, k, v = np.split(mixed, [n_key * length, 2 * n_key * length], -1)
        q, k = (part.reshape(n_rows, n_key, length) for part in (q, k))
        q, k = (part / np.sqrt((part**2).sum(-1, keepdims=True) + self.eps) for part in (q, k))
        # Value head h takes key head h modulo their number.
        q, k = (np.tile(part, (1, n_head // n_key, 1)) for part in (q, k))
        v = v.reshape(n_rows, n_head, -1)
        beta = sigmoid(self.product(x, f"{prefix}.ssm_beta"))
        alpha = np.log1p(np.exp(self.product(x, f"{prefix}.ssm_alpha") + self.weights[f"{prefix}.ssm_dt.bias"]))
        decay = np.exp(alpha * self.weights[f"{prefix}.ssm_a"].reshape(-1))
        state, out = np.zeros((n_head, length, v.shape[2])), np.zeros_like(v)
        for row in range(n_rows):
            state = state * decay[row][:, None, None]
            known = np.einsum("hkv,hk->hv", state, k[row])
            state = state + np.einsum("hk,hv->hkv", k[row], beta[row][:, None] * (v[row] - known))
            out[row] = np.einsum("hkv,hk->hv", state, q[row]) / np.sqrt(length)
        out = self.norm(out, f"{prefix}.ssm_norm") * silu(self.product(x, f"{prefix}.attn_gate").reshape(out.shape))
        return self.product(out.reshape(n_rows, -1), f"{prefix}.ssm_out")

    def feed_forward(self, x, layer):
        prefix, activate = f"blk.{layer}", gelu if self.kind.get("gelu") else silu
        if f"{prefix}.ffn_gate_inp.weight" in self.weights:
            return self.experts(x, prefix)
        up = self.product(x, f"{prefix}.ffn_up")
        gate, up = np.split(up, 2, -1) if self.kind.get("merged") else (self.product(x, f"{prefix}.ffn_gate"), up)
        return self.product(activate(gate) * up, f"{prefix}.ffn_down")

    def experts(self, x, prefix):
        """DeepSeek-V3's: sigmoids, of which a bias helps to choose, and a shared expert."""
        shares = sigmoid(self.product(x, f"{prefix}.ffn_gate_inp"))
        order = np.argsort(-(shares + self.weights[f"{prefix}.exp_probs_b.bias"]), -1, kind="stable")
        out = self.product(
            silu(self.product(x, f"{prefix}.ffn_gate_shexp")) * self.product(x, f"{prefix}.ffn_up_shexp"),
            f"{prefix}.ffn_down_shexp",
        )
        both, down = (self.weights[f"{prefix}.ffn_{name}_exps.weight"] for name in ("gate_up", "down"))
        for row, experts in enumerate(order[:, : self.key("expert_used_count")]):
            for expert in experts:
                gate, up = np.split(both[expert] @ x[row], 2)
                out[row] += shares[row, expert] * (down[expert] @ (silu(gate) * up))
        return out

    def layer(self, hidden, layer):
        prefix, bare, post = f"blk.{layer}", self.kind.get("bare"), self.kind.get("post")
        mix = getattr(self, self.kind.get("mixer", "attention"))
        first = hidden if bare else self.norm(hidden, f"{prefix}.attn_norm")
        update = mix(first, layer)
        update = self.norm(update, f"{prefix}.post_attention_norm") if post else update
        if self.kind.get("parallel"):
            return hidden + update + self.feed_forward(first, layer)
        hidden = hidden + update
        if not self.kind.get("ffn", True):
            return hidden
        second = hidden if bare else self.norm(hidden, f"{prefix}.{self.kind.get('ffn_norm', 'ffn_norm')}")
        update = self.feed_forward(second, layer)
        return hidden + (self.norm(update, f"{prefix}.post_ffw_norm") if post else update)

    def logits(self, tokens):
        hidden = self.weights["token_embd.weight"][tokens] * (np.sqrt(self.n_embd) if self.kind.get("scaled") else 1)
        for layer in range(self.n_layers):
            hidden = self.layer(hidden, layer)
        logits = self.product(
            self.norm(hidden, "output_norm"), "output" if "output.weight" in self.weights else "token_embd"
        )
        logits = logits * self.key("logit_scale", 1.0)
        if "caps" in self.kind:
            cap = self.key("final_logit_softcapping", self.kind["caps"][1])
            logits = cap * np.tanh(logits / cap)
        return logits


def print_answers(models, path):
    answers, exact = json.loads(Path(path).read_text()), {}
    for path in models:
        model, name = Model(path), Path(path).name
        exact[name] = [
            [[token, round(float(logits[token]), 4)] for token, _ in answer["last_logits_top20"]]
            for answer in answers[name]
            for logits in [model.logits(answer["tokens"])[-1]]
        ]
    lines = [f' "{name}": [\n' + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n ]" for name, rows in exact.items()]
    print("{\n" + ",\n".join(lines) + "\n}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--answers", help="models.json of the oracles")
    wanted.add_argument("--tokens", help="ids with commas between them")
    parser.add_argument("--context", type=int, help="positions that the engine makes room for")
    parser.add_argument("--out", help="file for the logits, as little-endian floats")
    args = parser.parse_args()
    if args.answers:
        return print_answers(args.models, args.answers)
    tokens = [int(token) for token in args.tokens.split(",")]
    Model(args.models[0], args.context).logits(tokens).astype("<f4").tofile(args.out)


if __name__ == "__main__":
    main()

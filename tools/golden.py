"""Writes crates/kernels/tests/golden/: what the reference makes of blocks of every tensor type.

    pip install gguf==0.19.0
    python tools/golden.py

The reference is the gguf package's `gguf.quants`. The types it doesn't have are computed here from the
description of their layout (ggml's `ggml-common.h`): plain numbers, Q1_0, Q2_0, Q8_1 and Q8_K.

decode.bin, encode.bin
    Records of a type id, a number of bytes, a number of floats (u32 each), the bytes of a row and its
    floats, all little-endian. In decode.bin the floats were made from the bytes, in encode.bin the bytes
    from the floats. A few blocks a type: where a decoder is wrong, these show at which weight.

digests.txt
    A line `decode TYPE DIGEST` or `encode TYPE DIGEST` for each type, over many more blocks than could be
    kept: every entry of every codebook, every scale. The input comes from a generator that the tests
    repeat; both are defined by `random_words`, `random_floats` and `digest` below.
"""

import struct
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type, quants

OUT = Path(__file__).parent.parent / "crates/kernels/tests/golden"
DIGEST_BLOCKS = 4096

# Block geometry, as (elements, bytes). The package has two singles where Q8_1 has had halves since 2024, and
# not yet Q2_0.
Q2_0 = 42
SIZES = {int(t): size for t, size in GGML_QUANT_SIZES.items()}
SIZES |= {int(Type.Q8_1): (32, 36), Q2_0: (64, 18)}
NAMES = {int(t): t.name for t in Type} | {Q2_0: "Q2_0"}


# Decoding where the package has none. `rows` is (blocks, bytes of a block).


def half(rows, at):
    return rows[:, at : at + 2].copy().view("<f2").astype(np.float32)


def decode_q1_0(rows):
    bits = np.unpackbits(rows[:, 2:], axis=1, bitorder="little")
    return np.where(bits == 1, half(rows, 0), -half(rows, 0))


def decode_q2_0(rows):
    q = np.stack([rows[:, 2:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=2).reshape(len(rows), 64)
    return half(rows, 0) * (q.astype(np.float32) - 1)


def decode_q8_1(rows):
    return half(rows, 0) * rows[:, 4:].view(np.int8).astype(np.float32)


def decode_q8_k(rows):
    return rows[:, :4].copy().view("<f4") * rows[:, 4:260].view(np.int8).astype(np.float32)


def numbers(dtype):
    return lambda rows: rows.view(dtype).astype(np.float32)


DECODE = {
    Type.Q1_0: decode_q1_0,
    Q2_0: decode_q2_0,
    Type.Q8_1: decode_q8_1,
    Type.Q8_K: decode_q8_k,
    Type.F64: numbers("<f8"),
    Type.I8: numbers("<i1"),
    Type.I16: numbers("<i2"),
    Type.I32: numbers("<i4"),
    Type.I64: numbers("<i8"),
}


def decode(type_id, data):
    rows = data.reshape(-1, SIZES[type_id][1])
    own = DECODE.get(type_id)
    return (own(rows) if own else quants.dequantize(rows, Type(type_id))).astype(np.float32).reshape(-1)


# Encoding where the package has none. `rows` is (blocks, elements of a block).


def encode_q8_1(rows):
    d = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.where(d == 0, np.float32(0), 1 / d)
    q = quants.np_roundf(rows * inverse)
    fields = [d.astype("<f2"), (q.sum(axis=1, keepdims=True) * d).astype("<f2"), q.astype(np.int8)]
    return np.concatenate([field.view(np.uint8) for field in fields], axis=1)


def encode_q8_k(rows):
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1, keepdims=True), axis=1)
    inverse = np.where(largest == 0, np.float32(0), np.float32(-127) / largest)
    q = np.rint(rows * inverse).astype(np.int8)
    d = np.where(largest == 0, np.float32(0), 1 / inverse)
    sums = q.reshape(len(rows), 16, 16).sum(axis=2).astype("<i2")
    return np.concatenate([field.view(np.uint8) for field in (d, q, sums)], axis=1)


ENCODE = {Type.Q8_1: encode_q8_1, Type.Q8_K: encode_q8_k}
ENCODED = [
    *(Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1),
    *(Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q8_1, Type.Q8_K),
]


def encode(type_id, floats):
    rows = floats.reshape(-1, SIZES[type_id][0])
    own = ENCODE.get(type_id)
    return (own(rows) if own else quants.quantize(rows, Type(type_id))).reshape(-1).view(np.uint8)


# Input that the tests can make too.


def mix(z):
    """The output function of SplitMix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def random_words(seed, n):
    """The first n outputs of SplitMix64."""
    return mix(np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def random_bytes(seed, n):
    return random_words(seed, -(-n // 8)).astype("<u8").view(np.uint8)[:n].copy()


def random_floats(seed, n):
    """From each word's top 24 bits a multiple of 2^-23 in [-1, 1); 256 at a time scaled by 2^-20 … 2^11."""
    unit = (random_words(seed, n) >> np.uint64(40)).astype(np.float32) * np.float32(2**-23) - np.float32(1)
    exponent = (np.arange(n) // 256 * 7 % 32 - 20).astype(np.float32)
    return unit * np.exp2(exponent)


def digest(values):
    """Σ mix(position · 2^32 + value) mod 2^64; floats by their bits, every NaN as 0x7FC00000."""
    if values.dtype == np.float32:
        values = np.where(np.isnan(values), np.uint32(0x7FC00000), values.view(np.uint32))
    positions = np.arange(len(values), dtype=np.uint64) << np.uint64(32)
    return int(mix(positions | values.astype(np.uint64)).sum(dtype=np.uint64))


# Vectors.

# Where a type keeps floats in a block: offsets and numpy type. Sub-byte and 8-bit scales are not listed.
SCALES = {
    **{t: ([0], "<f2") for t in (Type.Q4_0, Type.Q5_0, Type.Q8_0, Type.IQ4_NL, Type.IQ4_XS, Type.Q1_0, Q2_0)},
    **{t: ([0, 2], "<f2") for t in (Type.Q4_1, Type.Q5_1, Type.Q8_1, Type.Q4_K, Type.Q5_K)},
    **{t: ([0], "<f2") for t in (Type.IQ2_XXS, Type.IQ2_XS, Type.IQ2_S, Type.IQ3_XXS, Type.IQ3_S, Type.IQ1_S)},
    Type.Q2_K: ([80, 82], "<f2"),
    Type.Q3_K: ([108], "<f2"),
    Type.Q6_K: ([208], "<f2"),
    Type.TQ1_0: ([52], "<f2"),
    Type.TQ2_0: ([64], "<f2"),
    Type.Q8_K: ([0], "<f4"),
}
ORDINARY = [0.0123]
EXTREME = [65504.0, -6e-8, 0.0, -0.0, np.inf, np.nan]


def blocks_to_decode(type_id):
    """A random block with an ordinary scale and one with an extreme scale; all the extremes for small blocks."""
    elements, size = SIZES[type_id]
    scales = ORDINARY + (EXTREME if elements <= 32 else [EXTREME[type_id % 2]])
    if elements == 1:
        return random_bytes(type_id, 32 * size)
    rows = random_bytes(type_id, len(scales) * size).reshape(-1, size)
    offsets, dtype = SCALES.get(type_id, ([], "<f2"))
    for at in offsets:
        field = np.array(scales, dtype=dtype).reshape(-1, 1).view(np.uint8)
        rows[:, at : at + field.shape[1]] = field
    return rows.reshape(-1)


def floats_to_encode(type_id):
    """Random blocks of ordinary and small size, ties, zeros, a constant, and one outlier."""
    n = max(SIZES[type_id][0], 32)
    unit = random_floats(type_id, 256)[:n] * np.float32(2**20)
    outlier = np.where(np.arange(n) == 5, np.float32(-9), unit)
    ties = (np.arange(n) % 17 - 8).astype(np.float32) / 2
    constants = [np.full(n, value, dtype=np.float32) for value in (0, -3)]
    return np.concatenate([unit, unit * np.float32(1e-5), ties, outlier, *constants])


def write_records(path, records):
    with open(path, "wb") as out:
        for type_id, data, floats in records:
            out.write(struct.pack("<3I", type_id, len(data), len(floats)))
            out.write(data.tobytes() + floats.astype("<f4").tobytes())


def main():
    np.seterr(all="ignore")
    OUT.mkdir(exist_ok=True)
    types = sorted(SIZES)

    def decoded(type_id):
        data = blocks_to_decode(type_id)
        return int(type_id), data, decode(type_id, data)

    def encoded(type_id):
        floats = floats_to_encode(type_id)
        return int(type_id), encode(type_id, floats), floats

    write_records(OUT / "decode.bin", map(decoded, types))
    write_records(OUT / "encode.bin", map(encoded, ENCODED))
    lines = []
    for t in types:
        made = decode(t, random_bytes(t, DIGEST_BLOCKS * SIZES[t][1]))
        lines.append(f"decode {NAMES[t]} {digest(made):016x}\n")
    for t in ENCODED:
        made = encode(t, random_floats(t, DIGEST_BLOCKS * SIZES[t][0]))
        lines.append(f"encode {NAMES[t]} {digest(made):016x}\n")
    (OUT / "digests.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()

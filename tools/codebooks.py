"""Writes crates/kernels/src/quants/codebooks/packed.rs, the codebooks of the IQ formats.

The codebooks are part of the file format: numbers that were found by search and follow no rule. This
takes them from the gguf package (PyPI, the reference implementation in Python) and checks that packing
loses nothing.

    pip install gguf==0.19.0
    python tools/codebooks.py
"""

from pathlib import Path

import numpy as np
from gguf import quants

OUT = Path(__file__).parent.parent / "crates/kernels/src/quants/codebooks/packed.rs"
HEADER = """\
//! Codebooks as numbers of levels. Written by `tools/codebooks.py` from the `gguf` package; don't edit.

"""
TABLES = [
    ("IQ2_XXS", quants.IQ2_XXS),
    ("IQ2_XS", quants.IQ2_XS),
    ("IQ2_S", quants.IQ2_S),
    ("IQ3_XXS", quants.IQ3_XXS),
    ("IQ3_S", quants.IQ3_S),
    ("IQ1", quants.IQ1_S),
]


def pack(reference):
    """One 16-bit word an entry, the level number of its first weight lowest."""
    reference.init_grid()
    grid = reference.grid.reshape(reference.grid_shape)
    levels = np.array(reference.grid_map, dtype=np.float32)
    numbers = np.argmax(grid[..., None] == levels, axis=-1)
    assert np.array_equal(levels[numbers], grid)
    bits = 16 // grid.shape[1]
    assert len(levels) <= 1 << bits
    return (numbers << (bits * np.arange(grid.shape[1]))).sum(axis=1)


def main():
    text = HEADER
    for name, reference in TABLES:
        words = pack(reference)
        text += f"#[rustfmt::skip]\npub(super) const {name}: [u16; {len(words)}] = [\n"
        for row in words.reshape(-1, 16):
            text += "    " + " ".join(f"{word:#06x}," for word in row) + "\n"
        text += "];\n\n"
    OUT.write_text(text.rstrip("\n") + "\n")


if __name__ == "__main__":
    main()

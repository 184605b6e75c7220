"""Writes python_little.bin and python_big.bin with PyPI's gguf==0.19.0, an implementation independent of
ours: the tests read both and write the first byte for byte."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFEndian, GGUFValueType, GGUFWriter

HERE = Path(__file__).parent

for name, endianess in [("little", GGUFEndian.LITTLE), ("big", GGUFEndian.BIG)]:
    writer = GGUFWriter(HERE / f"python_{name}.bin", "test", endianess=endianess)
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -100)
    writer.add_uint16("u16", 60000)
    writer.add_int16("i16", -30000)
    writer.add_uint32("u32", 4000000000)
    writer.add_int32("i32", -2000000000)
    writer.add_float32("f32", 1.5)
    writer.add_bool("bool", True)
    writer.add_string("string", "héllo")
    writer.add_array("strings", ["a", "", "ccc"])
    writer.add_array("floats", [0.25, -2.0])
    writer.add_array("bools", [True, False, True])
    writer.add_uint64("u64", 2**63 + 1)
    writer.add_key_value("i64", -(2**62), GGUFValueType.INT64)
    writer.add_float64("f64", 1e300)
    writer.add_array("nested", [[1, 2, 3], [4]])
    floats = np.array([[1, 2, 3], [-4, 5.5, 0.125]], dtype=np.float32)
    writer.add_tensor("floats.weight", floats)
    halves = np.array([0.5, -2], dtype=np.float16)
    writer.add_tensor("halves.bias", halves)
    writer.add_tensor("bytes", np.arange(-3, 4, dtype=np.int8))
    blocks = np.frombuffer(bytes(range(36)), dtype=np.uint8).reshape(2, 18)
    writer.add_tensor("blocks.weight", blocks, raw_dtype=GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

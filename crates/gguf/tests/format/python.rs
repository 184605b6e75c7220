//! Files written by another implementation, PyPI's gguf: see `tests/data/make.py`.

use metallic_gguf::{ArrayBuf, ByteOrder, GgmlType, Gguf, GgufWriter, Value, ValueType};

const LITTLE: &[u8] = include_bytes!("../data/python_little.bin");
const BIG: &[u8] = include_bytes!("../data/python_big.bin");

#[test]
fn both_byte_orders_hold_the_same() {
    let (little, big) = (Gguf::parse(LITTLE).unwrap(), Gguf::parse(BIG).unwrap());
    assert_eq!((little.version(), little.byte_order()), (3, ByteOrder::Little));
    assert_eq!((big.version(), big.byte_order()), (3, ByteOrder::Big));
    assert_eq!(little.metadata().iter().collect::<Vec<_>>(), big.metadata().iter().collect::<Vec<_>>());

    let metadata = big.metadata();
    assert_eq!(metadata.get("general.architecture"), Some(Value::String(b"test")));
    assert_eq!(metadata.get("i16"), Some(Value::I16(-30_000)));
    assert_eq!(metadata.get("f64"), Some(Value::F64(1e300)));
    assert_eq!(metadata.get("string"), Some(Value::String("héllo".as_bytes())));
    assert_eq!(metadata.required::<Vec<&str>>("strings").unwrap(), ["a", "", "ccc"]);
    assert_eq!(metadata.required::<Vec<Vec<u32>>>("nested").unwrap(), [vec![1, 2, 3], vec![4]]);

    let floats = big.tensor("floats.weight").unwrap();
    assert_eq!((floats.ggml_type(), floats.shape()), (GgmlType::F32, &[3, 2][..]));
    let (data, _) = floats.data().as_chunks();
    assert!(data.iter().map(|&b| f32::from_be_bytes(b)).eq([1.0, 2.0, 3.0, -4.0, 5.5, 0.125]));
    let blocks = big.tensor("blocks.weight").unwrap();
    assert_eq!((blocks.ggml_type(), blocks.shape()), (GgmlType::Q4_0, &[32, 2][..]));
    assert_eq!(blocks.data(), (0..36).collect::<Vec<u8>>());
}

#[test]
fn the_writer_writes_the_same_bytes() {
    let mut file = GgufWriter::new();
    let set = |file: &mut GgufWriter| -> metallic_gguf::Result<()> {
        file.set("general.architecture", "test")?;
        file.set("u8", 200_u8)?.set("i8", -100_i8)?.set("u16", 60_000_u16)?.set("i16", -30_000_i16)?;
        file.set("u32", 4_000_000_000_u32)?.set("i32", -2_000_000_000_i32)?.set("f32", 1.5_f32)?;
        file.set("bool", true)?.set("string", "héllo")?;
        file.set("strings", &ArrayBuf::new(ValueType::String, ["a", "", "ccc"])?)?;
        file.set("floats", &ArrayBuf::new(ValueType::F32, [0.25_f32, -2.0])?)?;
        file.set("bools", &ArrayBuf::new(ValueType::Bool, [true, false, true])?)?;
        file.set("u64", (1_u64 << 63) + 1)?.set("i64", -(1_i64 << 62))?.set("f64", 1e300)?;
        let nested = [ArrayBuf::new(ValueType::I32, [1, 2, 3])?, ArrayBuf::new(ValueType::I32, [4])?];
        file.set("nested", &ArrayBuf::new(ValueType::Array, &nested)?)?;
        file.tensor("floats.weight", GgmlType::F32, &[3, 2])?;
        file.tensor("halves.bias", GgmlType::F16, &[2])?;
        file.tensor("bytes", GgmlType::I8, &[7])?;
        file.tensor("blocks.weight", GgmlType::Q4_0, &[32, 2])?;
        Ok(())
    };
    set(&mut file).unwrap();
    let mut data = file.begin(Vec::new()).unwrap();
    for value in [1.0_f32, 2.0, 3.0, -4.0, 5.5, 0.125] {
        data.write("floats.weight", &value.to_le_bytes()).unwrap();
    }
    data.write("halves.bias", &[0x00, 0x38, 0x00, 0xC0]).unwrap();
    data.write("bytes", &[0xFD, 0xFE, 0xFF, 0, 1, 2, 3]).unwrap();
    data.write("blocks.weight", &(0..36).collect::<Vec<u8>>()).unwrap();
    assert_eq!(data.finish().unwrap(), LITTLE);
}

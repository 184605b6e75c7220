//! What is written is read back, and nothing malformed is written.

use metallic_gguf::split::join;
use metallic_gguf::{ArrayBuf, Error, GgmlType, Gguf, GgufWriter, Value, ValueType};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::raw::{ARRAY, RawFile, STRING, encodings};

/// A value of any kind, which owns what it holds.
#[derive(Clone, Debug)]
enum Owned {
    Plain(Value<'static>),
    String(Vec<u8>),
    Array(ArrayBuf),
}

impl<'a> From<&'a Owned> for Value<'a> {
    fn from(owned: &'a Owned) -> Self {
        match owned {
            Owned::Plain(value) => *value,
            Owned::String(bytes) => bytes.as_slice().into(),
            Owned::Array(array) => array.into(),
        }
    }
}

/// Values of one type: what an array holds.
fn values(of: ValueType, depth: usize) -> BoxedStrategy<Owned> {
    fn plain<T: Arbitrary + Into<Value<'static>> + 'static>() -> BoxedStrategy<Owned> {
        any::<T>().prop_map(|value| Owned::Plain(value.into())).boxed()
    }
    match of {
        ValueType::U8 => plain::<u8>(),
        ValueType::I8 => plain::<i8>(),
        ValueType::U16 => plain::<u16>(),
        ValueType::I16 => plain::<i16>(),
        ValueType::U32 => plain::<u32>(),
        ValueType::I32 => plain::<i32>(),
        ValueType::F32 => plain::<f32>(),
        ValueType::Bool => plain::<bool>(),
        ValueType::String => vec(any::<u8>(), 0..20).prop_map(Owned::String).boxed(),
        ValueType::Array if depth == 0 => any_array(ValueType::U8, 0),
        ValueType::Array => value_type().prop_flat_map(move |of| any_array(of, depth - 1)).boxed(),
        ValueType::U64 => plain::<u64>(),
        ValueType::I64 => plain::<i64>(),
        ValueType::F64 => plain::<f64>(),
    }
}

fn any_array(of: ValueType, depth: usize) -> BoxedStrategy<Owned> {
    vec(values(of, depth), 0..5)
        .prop_map(move |values| Owned::Array(ArrayBuf::new(of, &values).unwrap()))
        .boxed()
}

fn value_type() -> impl Strategy<Value = ValueType> {
    proptest::sample::select(ValueType::ALL)
}

fn any_value() -> impl Strategy<Value = Owned> {
    value_type().prop_flat_map(|of| values(of, 3))
}

/// A type and a shape whose rows are whole blocks, some without elements, some scalars.
fn any_tensor() -> impl Strategy<Value = (GgmlType, Vec<u64>)> {
    (proptest::sample::select(GgmlType::ALL), vec(0..4_u64, 0..=4)).prop_map(|(ggml_type, mut shape)| {
        let block_len = ggml_type.block_len() as u64;
        match shape.first_mut() {
            Some(row_len) => *row_len *= block_len,
            None if block_len > 1 => shape.push(block_len),
            None => (),
        }
        (ggml_type, shape)
    })
}

fn data_of(name: &str, n_bytes: u64) -> Vec<u8> {
    let first = name.bytes().fold(0, u8::wrapping_add);
    (0..n_bytes).map(|at| (at as u8).wrapping_mul(31).wrapping_add(first)).collect()
}

/// Writes the tensors' data in pieces.
fn write_data(file: GgufWriter, tensors: &[(String, u64)]) -> Vec<u8> {
    let mut data = file.begin(Vec::new()).unwrap();
    for (name, n_bytes) in tensors {
        for piece in data_of(name, *n_bytes).chunks(100) {
            data.write(name, piece).unwrap();
        }
    }
    data.finish().unwrap()
}

fn sizes(tensors: &[(String, (GgmlType, Vec<u64>))]) -> Vec<(String, u64)> {
    let size = |(name, (ggml_type, shape)): &(String, (GgmlType, Vec<u64>))| {
        let row_bytes = ggml_type.row_bytes(shape.first().copied().unwrap_or(1)).unwrap();
        (name.clone(), row_bytes * shape.iter().skip(1).product::<u64>())
    };
    tensors.iter().map(size).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(
        metadata in btree_map("[a-z_.é]{1,20}", any_value(), 0..8),
        tensors in btree_map("[a-z0-9_.]{0,60}", any_tensor(), 0..8),
        alignment in 0..13_u32,
        shard_bytes in 0..5000_u64,
    ) {
        let tensors: Vec<_> = tensors.into_iter().collect();
        let sizes = sizes(&tensors);
        let mut file = GgufWriter::new();
        file.set("general.alignment", 1_u32 << alignment).unwrap();
        for (key, value) in &metadata {
            file.set(key, value).unwrap();
        }
        for (name, (ggml_type, shape)) in &tensors {
            file.tensor(name, *ggml_type, shape).unwrap();
        }
        let bytes = write_data(file.clone(), &sizes);
        let shards = file.split(shard_bytes).unwrap();
        let mut rest = &sizes[..];
        let shards: Vec<Vec<u8>> = shards.into_iter().map(|shard| {
            let (here, later) = rest.split_at(shard.n_tensors());
            rest = later;
            write_data(shard, here)
        }).collect();

        let whole = Gguf::parse(&bytes).unwrap();
        let joined = join(shards.iter().map(|bytes| Gguf::parse(bytes).unwrap()).collect()).unwrap();
        prop_assert_eq!(bytes.len() % (1 << alignment), 0);
        for gguf in [whole, joined] {
            prop_assert_eq!(gguf.alignment(), 1 << alignment);
            let read: Vec<_> = gguf.metadata().iter().filter(|(key, _)| metadata.contains_key(*key)).collect();
            let expected: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value.into())).collect();
            prop_assert_eq!(read, expected);
            prop_assert_eq!(gguf.tensors().len(), tensors.len());
            for ((tensor, (name, (ggml_type, shape))), (_, n_bytes)) in gguf.tensors().zip(&tensors).zip(&sizes) {
                prop_assert_eq!((tensor.name(), tensor.ggml_type()), (name.as_str(), *ggml_type));
                prop_assert_eq!(tensor.shape(), &shape[..]);
                prop_assert_eq!(tensor.data(), data_of(name, *n_bytes));
            }
        }
    }
}

#[test]
fn values_are_copied_from_files_of_every_encoding() {
    for (version, byte_order) in encodings() {
        let bytes = RawFile::with_encoding(version, byte_order)
            .key("a", |b| b.u32(ARRAY).u32(ARRAY).length(1).u32(STRING).length(2).string("x").string("yz"))
            .build();
        let value = Gguf::parse(&bytes).unwrap().metadata().get("a").unwrap();
        let mut file = GgufWriter::new();
        file.set("a", value).unwrap();
        let copy = file.begin(Vec::new()).unwrap().finish().unwrap();
        let copy = Gguf::parse(&copy).unwrap();
        assert_eq!(copy.metadata().required::<Vec<Vec<&str>>>("a").unwrap(), [["x", "yz"]]);
    }
}

#[test]
fn shards_are_filled_in_order_and_say_where_they_belong() {
    let mut file = GgufWriter::new();
    file.set("general.name", "m").unwrap();
    for (name, n_bytes) in [("a", 32), ("b", 32), ("c", 200), ("d", 32)] {
        file.tensor(name, GgmlType::I8, &[n_bytes]).unwrap();
    }
    let shards = file.clone().split(64).unwrap();
    let n_tensors: Vec<_> = shards.iter().map(GgufWriter::n_tensors).collect();
    assert_eq!(n_tensors, [2, 1, 1]);
    let last = shards.into_iter().next_back().unwrap();
    let last = write_data(last, &[("d".into(), 32)]);
    let metadata = Gguf::parse(&last).unwrap().metadata();
    assert_eq!(metadata.get("split.no"), Some(Value::U16(2)));
    assert_eq!(metadata.get("split.count"), Some(Value::U16(3)));
    assert_eq!(metadata.get("split.tensors.count"), Some(Value::I32(4)));
    assert_eq!(metadata.get("general.name"), None);

    assert_eq!(file.clone().split(1000).unwrap().len(), 1);
    file.set("split.no", 0_u16).unwrap();
    assert_eq!(file.split(64).unwrap_err(), Error::DuplicateKey { key: "split.no".into() });
}

#[test]
fn nothing_malformed_is_written() {
    let mut file = GgufWriter::new();
    file.set("k", 1_u32).unwrap().tensor("t", GgmlType::Q4_0, &[32]).unwrap();
    assert_eq!(file.set("k", 2_u32).unwrap_err(), Error::DuplicateKey { key: "k".into() });
    assert_eq!(file.set("", 2_u32).unwrap_err(), Error::EmptyKey { index: 1 });
    let long = "k".repeat(65_536);
    assert!(matches!(file.set(&long, 2_u32), Err(Error::KeyTooLong { bytes: 65_536, .. })));
    assert!(matches!(file.set("general.alignment", 12_u32), Err(Error::BadAlignment { alignment: 12, .. })));
    assert!(matches!(file.set("general.alignment", "32"), Err(Error::WrongType { .. })));
    file.set("general.alignment", 64_u64).unwrap();
    assert!(matches!(file.set("general.alignment", 128_u32), Err(Error::DuplicateKey { .. })));
    let mixed = ArrayBuf::new(ValueType::U8, [1_u32]).unwrap_err();
    assert_eq!(mixed, Error::MixedArray { expected: "u8", found: "u32" });
    let mut nested = ArrayBuf::new::<u8>(ValueType::U8, []).unwrap();
    for _ in 0..64 {
        nested = ArrayBuf::new(ValueType::Array, [&nested]).unwrap();
    }
    assert!(matches!(file.set("deep", &nested), Err(Error::ArrayTooDeep { limit: 64, .. })));

    let duplicate = file.tensor("t", GgmlType::F32, &[1]).unwrap_err();
    assert_eq!(duplicate, Error::DuplicateTensor { tensor: "t".into() });
    assert!(matches!(file.tensor("p", GgmlType::Q4_0, &[31]), Err(Error::PartialBlock { .. })));
    assert!(matches!(file.tensor("d", GgmlType::F32, &[1; 5]), Err(Error::TooManyDims { n_dims: 5, .. })));
    assert!(matches!(file.tensor("a\0", GgmlType::F32, &[1]), Err(Error::TensorNameNotText { .. })));
    for shape in [[1 << 62, 1], [1 << 32, 1 << 32], [(1 << 60) - 1, 2]] {
        assert!(matches!(file.tensor("big", GgmlType::F64, &shape), Err(Error::ShapeOverflow { .. })));
    }

    let bytes = write_data(file, &[("t".into(), 18)]);
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!((gguf.metadata().len(), gguf.tensors().len()), (2, 1), "what was refused left no trace");
    assert_eq!((gguf.alignment(), gguf.metadata().get("general.alignment")), (64, Some(Value::U32(64))));
}

#[test]
fn data_must_come_in_order_and_whole() {
    fn cause(error: std::io::Error) -> Error {
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        error.into_inner().unwrap().downcast_ref::<Error>().unwrap().clone()
    }
    let mut file = GgufWriter::new();
    file.tensor("a", GgmlType::I8, &[2]).unwrap().tensor("zero", GgmlType::I8, &[0]).unwrap();
    file.tensor("b", GgmlType::I8, &[1]).unwrap();

    let mut data = file.clone().begin(Vec::new()).unwrap();
    let error = cause(data.write("b", &[1]).unwrap_err());
    assert_eq!(error, Error::TensorOrder { expected: Some("a".into()), found: "b".into() });
    data.write("a", &[1]).unwrap();
    let error = cause(data.write("a", &[2, 3]).unwrap_err());
    assert_eq!(error, Error::TensorBytes { tensor: "a".into(), expected: 2, found: 3 });
    let error = cause(data.finish().unwrap_err());
    assert_eq!(error, Error::TensorBytes { tensor: "a".into(), expected: 2, found: 1 });

    let mut data = file.begin(Vec::new()).unwrap();
    data.write("a", &[1, 2]).unwrap();
    data.write("b", &[3]).unwrap(); // a tensor of zero size may be left out
    let error = cause(data.write("b", &[]).unwrap_err());
    assert_eq!(error, Error::TensorOrder { expected: None, found: "b".into() });
    let bytes = data.finish().unwrap();
    assert_eq!(Gguf::parse(&bytes).unwrap().tensor("b").unwrap().data(), [3]);
}

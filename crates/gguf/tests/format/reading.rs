//! What is accepted, and what it means.

use metallic_gguf::{ArrayBuf, ByteOrder, Error, GgmlType, Gguf, Value, ValueType};

use crate::raw::{ARRAY, BOOL, Bytes, F64, I32, RawFile, STRING, U32, U64, encodings, tensor_type};

#[test]
fn every_value_type_in_every_version_and_byte_order() {
    for (version, byte_order) in encodings() {
        let bytes = RawFile::with_encoding(version, byte_order)
            .key("u8", |b| b.u32(0).u8(200))
            .key("i8", |b| b.u32(1).i8(-100))
            .key("u16", |b| b.u32(2).u16(60_000))
            .key("i16", |b| b.u32(3).i16(-30_000))
            .key("u32", |b| b.u32(4).u32(4_000_000_000))
            .key("i32", |b| b.u32(5).i32(-2_000_000_000))
            .key("f32", |b| b.u32(6).f32(1.5))
            .key("bool", |b| b.u32(7).u8(1))
            .key("string", |b| b.u32(8).string("héllo"))
            .key("array", |b| b.u32(9).u32(8).length(2).string("a").string(""))
            .key("u64", |b| b.u32(10).u64(u64::MAX))
            .key("i64", |b| b.u32(11).i64(i64::MIN))
            .key("f64", |b| b.u32(12).f64(1e300))
            .build();
        let gguf = Gguf::parse(&bytes).unwrap();
        assert_eq!((gguf.version(), gguf.byte_order()), (version, byte_order));
        let strings = ArrayBuf::new(ValueType::String, ["a", ""]).unwrap();
        let expected = [
            ("u8", Value::U8(200)),
            ("i8", Value::I8(-100)),
            ("u16", Value::U16(60_000)),
            ("i16", Value::I16(-30_000)),
            ("u32", Value::U32(4_000_000_000)),
            ("i32", Value::I32(-2_000_000_000)),
            ("f32", Value::F32(1.5)),
            ("bool", Value::Bool(true)),
            ("string", Value::String("héllo".as_bytes())),
            ("array", Value::Array(strings.as_array())),
            ("u64", Value::U64(u64::MAX)),
            ("i64", Value::I64(i64::MIN)),
            ("f64", Value::F64(1e300)),
        ];
        assert_eq!(gguf.metadata().iter().collect::<Vec<_>>(), expected, "version {version}, {byte_order}");
        for ((key, value), value_type) in expected.into_iter().zip(ValueType::ALL) {
            assert_eq!(gguf.metadata().get(key), Some(value));
            assert_eq!(value.value_type(), *value_type);
        }
        assert_eq!(gguf.metadata().get("absent"), None);
    }
}

#[test]
fn tensors_in_every_version_and_byte_order() {
    for (version, byte_order) in encodings() {
        let bytes = RawFile::with_encoding(version, byte_order)
            .tensor("a", &[64, 3], tensor_type::Q4_0, 0)
            .tensor("b", &[1, 2, 3, 4], tensor_type::F32, 128)
            .data(&(0..224).collect::<Vec<u8>>())
            .build();
        let gguf = Gguf::parse(&bytes).unwrap();
        let [a, b] = gguf.tensors().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!((a.name(), a.ggml_type(), a.shape()), ("a", GgmlType::Q4_0, &[64, 3][..]));
        assert_eq!((a.n_elements(), a.row_len(), a.n_rows(), a.n_bytes()), (192, 64, 3, 108));
        assert_eq!(a.data(), (0..108).collect::<Vec<u8>>());
        assert_eq!((b.name(), b.ggml_type(), b.shape()), ("b", GgmlType::F32, &[1, 2, 3, 4][..]));
        assert_eq!((b.n_elements(), b.row_len(), b.n_rows(), b.n_bytes()), (24, 1, 24, 96));
        assert_eq!(b.data(), (128..224).collect::<Vec<u8>>());
        assert_eq!((b.shard(), b.byte_order()), (0, byte_order));
        assert_eq!(b.file_offset() as usize, bytes.len() - 96);
        assert_eq!(gguf.tensor("b").unwrap().data(), b.data());
        assert!(gguf.tensor("c").is_none());
    }
}

#[test]
fn every_tensor_type_has_the_size_of_its_blocks() {
    for &ggml_type in GgmlType::ALL {
        let n_bytes = 2 * 3 * ggml_type.block_bytes();
        let dims = [2 * ggml_type.block_len() as u64, 3];
        let file = RawFile::new().tensor("t", &dims, ggml_type.id(), 0);
        let exact = file.clone().data(&vec![7; n_bytes]).build();
        assert_eq!(
            Gguf::parse(&exact).unwrap().tensors().next().unwrap().data(),
            vec![7; n_bytes],
            "{ggml_type}"
        );
        let short = file.data(&vec![7; n_bytes - 1]).build();
        assert!(matches!(Gguf::parse(&short), Err(Error::OutsideFile { .. })), "{ggml_type}");
    }
}

#[test]
fn a_scalar_has_one_element() {
    let bytes = RawFile::new().tensor("scalar", &[], tensor_type::F32, 0).data(&[1, 2, 3, 4]).build();
    let scalar = Gguf::parse(&bytes).unwrap().tensors().next().unwrap();
    assert_eq!(scalar.shape(), &[] as &[u64]);
    assert_eq!((scalar.n_elements(), scalar.row_len(), scalar.n_rows(), scalar.n_bytes()), (1, 1, 1, 4));
    assert_eq!(scalar.data(), [1, 2, 3, 4]);
}

#[test]
fn a_tensor_of_zero_size_shares_its_neighbours_offset() {
    let bytes = RawFile::new()
        .tensor("none", &[0], tensor_type::F32, 0)
        .tensor("some", &[2], tensor_type::F32, 0)
        .tensor("none inside", &[5, 0, 3], tensor_type::F32, 0)
        .tensor("none at the end", &[256, 0], tensor_type::Q4_K, 32)
        .data(&[9; 8])
        .build();
    let gguf = Gguf::parse(&bytes).unwrap();
    for name in ["none", "none inside", "none at the end"] {
        let tensor = gguf.tensor(name).unwrap();
        assert_eq!(
            (tensor.n_elements(), tensor.n_rows(), tensor.n_bytes(), tensor.data()),
            (0, 0, 0, &[][..])
        );
        assert!(tensor.file_offset() as usize <= bytes.len(), "{name}");
    }
    assert_eq!(gguf.tensor("some").unwrap().data(), [9; 8]);
}

#[test]
fn gaps_and_any_order_are_accepted_and_end_padding_is_not_needed() {
    let bytes = RawFile::new()
        .tensor("last", &[4], tensor_type::I8, 96)
        .tensor("first", &[4], tensor_type::I8, 32)
        .data(&(0..100).collect::<Vec<u8>>())
        .build();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.tensor("first").unwrap().data(), [32, 33, 34, 35]);
    assert_eq!(gguf.tensor("last").unwrap().data(), [96, 97, 98, 99]);
    assert_eq!(gguf.tensors().map(|t| t.name()).collect::<Vec<_>>(), ["last", "first"]);
}

#[test]
fn the_file_states_its_alignment() {
    for alignment in [1, 8, 64, 4096, 1 << 20] {
        let file = RawFile::new().alignment(alignment).tensor("t", &[3], tensor_type::I8, alignment.into());
        let bytes = file.data(&vec![0; alignment as usize]).data(&[1, 2, 3]).build();
        let gguf = Gguf::parse(&bytes).unwrap();
        assert_eq!(gguf.alignment(), u64::from(alignment));
        assert_eq!(gguf.tensor("t").unwrap().data(), [1, 2, 3]);
    }
    let bytes = RawFile::new().build();
    assert_eq!(Gguf::parse(&bytes).unwrap().alignment(), 32);
    // Any width of integer will do, as for counts.
    let bytes = RawFile::new().key("general.alignment", |b| b.u32(U64).u64(64)).build();
    assert_eq!(Gguf::parse(&bytes).unwrap().alignment(), 64);
}

#[test]
fn a_file_without_tensors_ends_with_its_metadata() {
    let bytes = RawFile::new().key("general.type", |b| b.u32(STRING).string("vocab")).build();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.tensors().len(), 0);
    assert_eq!(gguf.metadata().len(), 1);
}

#[test]
fn nested_arrays_hold_arrays_of_different_types_and_empty_ones() {
    for (version, byte_order) in encodings() {
        let bytes = RawFile::with_encoding(version, byte_order)
            .key("nested", |b| {
                b.u32(ARRAY).u32(ARRAY).length(3);
                b.u32(I32).length(2).i32(-1).i32(2);
                b.u32(STRING).length(1).string("x");
                b.u32(BOOL).length(0)
            })
            .key("after", |b| b.u32(F64).f64(0.5))
            .build();
        let gguf = Gguf::parse(&bytes).unwrap();
        let inner = [
            ArrayBuf::new(ValueType::I32, [-1, 2]).unwrap(),
            ArrayBuf::new(ValueType::String, ["x"]).unwrap(),
            ArrayBuf::new::<bool>(ValueType::Bool, []).unwrap(),
        ];
        let nested = ArrayBuf::new(ValueType::Array, &inner).unwrap();
        assert_eq!(gguf.metadata().get("nested"), Some(Value::from(&nested)));
        assert_eq!(gguf.metadata().get("after"), Some(Value::F64(0.5)));
    }
}

/// Arrays of one array, `depth` of them.
pub(crate) fn nested(b: &mut Bytes, depth: usize) -> &mut Bytes {
    b.u32(ARRAY);
    for _ in 1..depth {
        b.u32(ARRAY).length(1);
    }
    b.u32(U32).length(0)
}

#[test]
fn arrays_nest_as_deep_as_the_limit() {
    let bytes = RawFile::new().key("deep", |b| nested(b, metallic_gguf::MAX_ARRAY_DEPTH)).build();
    assert!(Gguf::parse(&bytes).is_ok());
}

#[test]
fn strings_keep_their_bytes() {
    let odd = [b"trailing NUL\0".as_slice(), &[0xE2, 0x96], &[0xFF]];
    let bytes = RawFile::new()
        .key("pieces", |b| b.u32(ARRAY).u32(STRING).length(3).string(odd[0]).string(odd[1]).string(odd[2]))
        .build();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.metadata().required::<Vec<&[u8]>>("pieces").unwrap(), odd);
}

#[test]
fn keys_and_names_outside_the_specification_that_occur_are_accepted() {
    let name = "n".repeat(127);
    let bytes = RawFile::new()
        .key("Some-Key é", |b| b.u32(U32).u32(1))
        .key("k".repeat(65_535), |b| b.u32(U32).u32(2))
        .tensor(&name, &[1], tensor_type::I8, 0)
        .data(&[1])
        .build();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.metadata().get("Some-Key é"), Some(Value::U32(1)));
    assert!(gguf.tensor(&name).is_some());
}

#[test]
fn views_live_as_long_as_the_bytes() {
    let bytes = RawFile::new()
        .key("name", |b| b.u32(STRING).string("x"))
        .tensor("t", &[1], tensor_type::I8, 0)
        .data(&[5])
        .build();
    let (name, tensor) = {
        let gguf = Gguf::parse(&bytes).unwrap();
        (gguf.metadata().required::<&str>("name").unwrap(), gguf.tensor("t").unwrap())
    };
    assert_eq!((name, tensor.name(), tensor.data()), ("x", "t", &[5][..]));
}

#[test]
fn an_index_is_a_view_of_the_bytes_it_was_made_from_only() {
    let bytes = RawFile::new().tensor("t", &[2], tensor_type::I8, 0).data(&[5, 6]).build();
    let index = Gguf::parse(&bytes).unwrap().index();
    assert_eq!(index.view([&bytes[..]]).unwrap().tensor("t").unwrap().data(), [5, 6]);
    let (expected, found) = (bytes.len() as u64, bytes.len() as u64 - 1);
    let error = index.view([&bytes[1..]]).unwrap_err();
    assert_eq!(error, Error::WrongBytes { shard: 0, expected, found });
    let error = index.view([&bytes[..], &bytes]).unwrap_err();
    assert_eq!(error, Error::ShardCount { declared: 1, found: 2 });
    assert_eq!(index.view([]).unwrap_err(), Error::ShardCount { declared: 1, found: 0 });
}

#[test]
fn byte_order_is_found_by_the_version() {
    let big = RawFile::with_encoding(3, ByteOrder::Big).build();
    assert_eq!(big[..8], [0x47, 0x47, 0x55, 0x46, 0, 0, 0, 3]);
    assert_eq!(Gguf::parse(&big).unwrap().byte_order(), ByteOrder::Big);
}

/// As in C, and in files that programs in C wrote.
#[test]
fn a_boolean_is_false_only_where_it_is_0() {
    let file = RawFile::new()
        .key("k", |b| b.u32(BOOL).u8(2))
        .key("all", |b| b.u32(ARRAY).u32(BOOL).length(3).u8(0).u8(1).u8(255))
        .build();
    let metadata = Gguf::parse(&file).unwrap().metadata();
    assert_eq!(metadata.required("k"), Ok(true));
    assert_eq!(metadata.required("all"), Ok(vec![false, true, true]));
}

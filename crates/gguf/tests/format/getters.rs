//! Metadata read as Rust types.

use metallic_gguf::{Array, Error, Gguf, MAX_LAYERS, Metadata, Result, Value};

use crate::raw::{ARRAY, BOOL, F32, F64, I32, RawFile, STRING, U8, U16, U32, U64};

fn with_metadata(test: impl FnOnce(Metadata<'_>)) {
    let bytes = RawFile::new()
        .key("u8", |b| b.u32(U8).u8(255))
        .key("u16", |b| b.u32(U16).u16(32))
        .key("u32", |b| b.u32(U32).u32(4_000_000_000))
        .key("negative", |b| b.u32(I32).i32(-1))
        .key("u64", |b| b.u32(U64).u64(u64::MAX))
        .key("f32", |b| b.u32(F32).f32(0.1))
        .key("f64", |b| b.u32(F64).f64(0.1))
        .key("huge", |b| b.u32(F64).f64(1e300))
        .key("infinite", |b| b.u32(F64).f64(f64::INFINITY))
        .key("bool", |b| b.u32(BOOL).u8(0))
        .key("text", |b| b.u32(STRING).string("né"))
        .key("not text", |b| b.u32(STRING).string([b'a', 0xC3]))
        .key("counts", |b| b.u32(ARRAY).u32(I32).length(3).i32(8).i32(0).i32(4))
        .key("flags", |b| b.u32(ARRAY).u32(BOOL).length(2).u8(1).u8(0))
        .key("words", |b| b.u32(ARRAY).u32(STRING).length(2).string("a").string("b"))
        .key("none", |b| b.u32(ARRAY).u32(F32).length(0))
        .build();
    test(Gguf::parse(&bytes).unwrap().metadata());
}

fn out_of_range<T>(key: &str, value: &str, target: &'static str) -> Result<T> {
    Err(Error::OutOfRange { key: key.into(), value: value.into(), target })
}

fn wrong_type<T>(key: &str, expected: &'static str, found: &str) -> Result<T> {
    Err(Error::WrongType { key: key.into(), expected, found: found.into() })
}

#[test]
fn integers_convert_when_they_fit() {
    with_metadata(|m| {
        assert_eq!(m.required::<u64>("u8"), Ok(255));
        assert_eq!(m.required::<i16>("u8"), Ok(255));
        assert_eq!(m.required::<i8>("u8"), out_of_range("u8", "255", "i8"));
        assert_eq!(m.required::<usize>("u32"), Ok(4_000_000_000));
        assert_eq!(m.required::<i32>("u32"), out_of_range("u32", "4000000000", "i32"));
        assert_eq!(m.required::<i64>("negative"), Ok(-1));
        assert_eq!(m.required::<i64>("u64"), out_of_range("u64", "18446744073709551615", "i64"));
        assert_eq!(m.required::<u64>("u64"), Ok(u64::MAX));
    });
}

/// CVE-2026-21869: a negative number taken for a count.
#[test]
fn a_negative_number_is_no_count() {
    with_metadata(|m| {
        assert_eq!(m.required::<usize>("negative"), out_of_range("negative", "-1", "usize"));
        assert_eq!(m.required::<u32>("negative"), out_of_range("negative", "-1", "u32"));
    });
}

#[test]
fn floats_convert_between_widths_only() {
    with_metadata(|m| {
        assert_eq!(m.required::<f32>("f32"), Ok(0.1));
        assert_eq!(m.required::<f32>("f64"), Ok(0.1));
        assert_eq!(m.required::<f64>("f64"), Ok(0.1));
        assert_eq!(m.required::<f64>("f32"), Ok(f64::from(0.1_f32)));
        assert_eq!(m.required::<f32>("infinite"), Ok(f32::INFINITY));
        assert!(matches!(m.required::<f32>("huge"), Err(Error::OutOfRange { target: "f32", .. })));
        assert_eq!(m.required::<f32>("u8"), wrong_type("u8", "a float", "of type u8"));
        assert_eq!(m.required::<u32>("f32"), wrong_type("f32", "an integer", "of type f32"));
    });
}

#[test]
fn text_is_checked_and_bytes_are_not() {
    with_metadata(|m| {
        assert_eq!(m.required::<&str>("text"), Ok("né"));
        assert_eq!(m.required::<&[u8]>("not text"), Ok(&[b'a', 0xC3][..]));
        assert_eq!(
            m.required::<&str>("not text"),
            Err(Error::ValueNotUtf8 { key: "not text".into(), at: 1 })
        );
        assert_eq!(m.required::<&str>("u8"), wrong_type("u8", "a string", "of type u8"));
        assert_eq!(m.required::<&str>("words"), wrong_type("words", "a string", "an array of string"));
        assert_eq!(m.required::<bool>("bool"), Ok(false));
        assert_eq!(m.required::<bool>("u8"), wrong_type("u8", "a bool", "of type u8"));
    });
}

#[test]
fn absence_is_an_error_only_where_the_key_is_required() {
    with_metadata(|m| {
        assert_eq!(m.optional::<u32>("absent"), Ok(None));
        assert_eq!(m.required::<u32>("absent"), Err(Error::MissingKey { key: "absent".into() }));
        assert_eq!(m.optional::<u32>("u16"), Ok(Some(32)));
        assert_eq!(m.optional::<u32>("text"), wrong_type("text", "an integer", "of type string"));
    });
}

#[test]
fn arrays_convert_element_by_element() {
    with_metadata(|m| {
        assert_eq!(m.required::<Vec<u8>>("counts"), Ok(vec![8, 0, 4]));
        assert_eq!(m.required::<Vec<bool>>("flags"), Ok(vec![true, false]));
        assert_eq!(m.required::<Vec<&str>>("words"), Ok(vec!["a", "b"]));
        assert_eq!(m.required::<Vec<f32>>("none"), Ok(vec![]));
        assert_eq!(m.required::<Vec<f32>>("counts"), wrong_type("counts", "a float", "of type i32"));
        assert_eq!(m.required::<Vec<u8>>("u8"), wrong_type("u8", "an array", "of type u8"));
        let counts: Array<'_> = m.required("counts").unwrap();
        assert_eq!((counts.len(), counts.is_empty(), counts.key()), (3, false, "counts"));
        assert_eq!(counts.iter().next(), Some(Value::I32(8)));
        assert_eq!(counts.values::<usize>().collect::<Result<Vec<_>>>(), Ok(vec![8, 0, 4]));
        assert!(counts.strings().is_err());
        let words: Array<'_> = m.required("words").unwrap();
        assert_eq!(words.strings().unwrap().collect::<Vec<_>>(), [b"a", b"b"]);
    });
}

#[test]
fn a_value_for_each_layer_is_one_or_as_many_as_layers() {
    with_metadata(|m| {
        assert_eq!(m.per_layer::<usize>("u16", 3), Ok(Some(vec![32, 32, 32])));
        assert_eq!(m.per_layer::<usize>("counts", 3), Ok(Some(vec![8, 0, 4])));
        assert_eq!(m.per_layer::<bool>("flags", 2), Ok(Some(vec![true, false])));
        assert_eq!(m.per_layer::<usize>("absent", 3), Ok(None));
        let wrong_length = Error::WrongLength { key: "counts".into(), expected: 4, found: 3 };
        assert_eq!(m.per_layer::<usize>("counts", 4), Err(wrong_length));
        assert_eq!(m.per_layer::<usize>("negative", 2), out_of_range("negative", "-1", "usize"));
        assert!(matches!(
            m.per_layer::<usize>("u16", MAX_LAYERS + 1),
            Err(Error::TooManyLayers { limit: 65_536, .. })
        ));
    });
}

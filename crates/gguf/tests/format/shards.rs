//! Models in several files.

use metallic_gguf::split::{ShardName, is_whole, join, parse_shard_name, shard_name};
use metallic_gguf::{ByteOrder, Error, Gguf, Result};

use crate::raw::{I32, RawFile, STRING, U16, tensor_type};

fn shard(no: u16, count: u16, n_tensors: i32) -> RawFile {
    shard_in(ByteOrder::Little, no, count, n_tensors)
}

fn shard_in(byte_order: ByteOrder, no: u16, count: u16, n_tensors: i32) -> RawFile {
    RawFile::with_encoding(3, byte_order)
        .key("split.no", |b| b.u32(U16).u16(no))
        .key("split.count", |b| b.u32(U16).u16(count))
        .key("split.tensors.count", |b| b.u32(I32).i32(n_tensors))
}

fn with_tensor(file: RawFile, name: &str, value: u8) -> RawFile {
    file.tensor(name, &[1], tensor_type::I8, 0).data(&[value])
}

/// The tensors of the files together: name, shard, value.
fn join_files(files: &[RawFile]) -> Result<Vec<(String, usize, u8)>> {
    let files: Vec<Vec<u8>> = files.iter().map(RawFile::build).collect();
    let joined = join(files.iter().map(|bytes| Gguf::parse(bytes).unwrap()).collect())?;
    for tensor in joined.tensors() {
        assert_eq!(joined.tensor(tensor.name()).unwrap().data(), tensor.data());
    }
    assert_eq!(joined.n_shards(), files.len());
    Ok(joined.tensors().map(|t| (t.name().to_owned(), t.shard(), t.data()[0])).collect())
}

#[test]
fn tensors_of_all_shards_and_metadata_of_the_first() {
    let first = shard(0, 3, 2).key("general.name", |b| b.u32(STRING).string("m")).build();
    let second = with_tensor(shard(1, 3, 2), "a", 7).build();
    // An alignment of its own, so data start elsewhere.
    let third = with_tensor(shard(2, 3, 2).alignment(64), "b", 8).build();
    let files = [&first[..], &second, &third];
    let joined = join(files.iter().map(|bytes| Gguf::parse(bytes).unwrap()).collect()).unwrap();
    assert_eq!(joined.n_shards(), 3);
    assert_eq!(joined.metadata().required::<&str>("general.name"), Ok("m"));
    let tensors: Vec<_> = joined.tensors().map(|t| (t.name(), t.shard(), t.data())).collect();
    assert_eq!(tensors, [("a", 1, &[7][..]), ("b", 2, &[8])]);
    assert_eq!(joined.tensor("b").unwrap().data(), [8]);

    let again = joined.index().view(files).unwrap();
    assert_eq!(again.tensor("a").unwrap().data(), [7]);
    let two_files = joined.index().view([files[0], files[1]]);
    assert_eq!(two_files.unwrap_err(), Error::ShardCount { declared: 3, found: 2 });
    let swapped = joined.index().view([files[0], files[2], files[1]]);
    let (expected, found) = (files[1].len() as u64, files[2].len() as u64);
    assert_eq!(swapped.unwrap_err(), Error::WrongBytes { shard: 1, expected, found });
}

#[test]
fn a_file_that_was_not_split_passes() {
    assert_eq!(join_files(&[with_tensor(RawFile::new(), "a", 1)]), Ok(vec![("a".into(), 0, 1)]));
}

/// What `llama-gguf-split --merge` leaves: the first shard's keys, and a count of 0.
#[test]
fn a_file_of_merged_shards_is_whole() {
    for (no, count, n_tensors) in [(0, 0, 21), (0, 1, 1), (7, 0, -1), (1, 1, 0)] {
        let merged = with_tensor(shard(no, count, n_tensors), "a", 1);
        assert!(is_whole(&Gguf::parse(&merged.build()).unwrap()).unwrap());
        assert_eq!(join_files(&[merged]), Ok(vec![("a".into(), 0, 1)]), "{no} of {count}");
    }
    let merged = with_tensor(shard(0, 0, 2), "a", 1);
    let other = with_tensor(shard(1, 2, 2), "b", 2);
    assert!(!is_whole(&Gguf::parse(&other.build()).unwrap()).unwrap());
    assert_eq!(join_files(&[merged, other]), Err(Error::ShardCount { declared: 0, found: 2 }));
}

#[test]
fn a_shard_parses_alone_but_is_not_the_model() {
    let alone = with_tensor(shard(1, 2, 2), "a", 1);
    assert!(Gguf::parse(&alone.build()).is_ok());
    assert_eq!(join_files(&[alone]), Err(Error::ShardCount { declared: 2, found: 1 }));
}

#[test]
fn shards_that_are_not_one_model_are_refused() {
    let (a, b) = (with_tensor(shard(0, 2, 2), "a", 1), with_tensor(shard(1, 2, 2), "b", 2));
    assert!(join_files(&[a.clone(), b.clone()]).is_ok());
    assert_eq!(join_files(&[]), Err(Error::ShardCount { declared: 1, found: 0 }));
    assert_eq!(join_files(&[b.clone(), a.clone()]), Err(Error::ShardNumber { place: 0, found: 1 }));
    assert_eq!(join_files(&[a.clone(), a.clone()]), Err(Error::ShardNumber { place: 1, found: 0 }));
    let of_three = with_tensor(shard(1, 3, 2), "b", 2);
    assert_eq!(join_files(&[a.clone(), of_three]), Err(Error::ShardCount { declared: 3, found: 2 }));
    let twice = with_tensor(shard(1, 2, 2), "a", 2);
    assert_eq!(join_files(&[a.clone(), twice]), Err(Error::DuplicateTensor { tensor: "a".into() }));
    let of_three_tensors = with_tensor(shard(0, 2, 3), "a", 1);
    assert_eq!(
        join_files(&[of_three_tensors, b.clone()]),
        Err(Error::ShardTensors { declared: 3, found: 2 })
    );
    let big = with_tensor(shard_in(ByteOrder::Big, 1, 2, 2), "b", 2);
    assert_eq!(join_files(&[a.clone(), big]), Err(Error::ShardByteOrder { shard: 1, found: ByteOrder::Big }));
    let unnumbered = with_tensor(RawFile::new(), "b", 2);
    assert_eq!(join_files(&[a, unnumbered]), Err(Error::MissingKey { key: "split.count".into() }));
    let negative = with_tensor(shard(0, 2, -1), "a", 1);
    assert!(matches!(join_files(&[negative, b]), Err(Error::OutOfRange { .. })));
}

#[test]
fn names_count_from_one() {
    assert_eq!(shard_name("dir/m-q4", 1, 12), "dir/m-q4-00002-of-00012.gguf");
    assert_eq!(shard_name("m", u16::MAX - 1, u16::MAX), "m-65535-of-65535.gguf");
    for (no, count) in [(0, 1), (1, 12), (u16::MAX - 1, u16::MAX)] {
        let name = shard_name("a-of-b-00001", no, count);
        assert_eq!(parse_shard_name(&name), Some(ShardName { prefix: "a-of-b-00001", no, count }));
    }
    for other in [
        "m.gguf",
        "m-1-of-2.gguf",
        "m-00000-of-00002.gguf",
        "m-00003-of-00002.gguf",
        "m-00001-of-99999.gguf",
        "m-+0001-of-00002.gguf",
        "m-00001-of-00002.bin",
        "m00001-of-00002.gguf",
        "-of-.gguf",
        "",
    ] {
        assert_eq!(parse_shard_name(other), None, "{other}");
    }
}

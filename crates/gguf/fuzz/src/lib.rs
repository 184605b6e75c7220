//! What the fuzz targets do with their bytes. The crate's tests include this file and replay the seeds, so
//! ordinary `cargo test` covers it.

use metallic_gguf::{Array, FromValue, Gguf, Metadata, split};

/// Parses, and holds a file that was accepted to what `Gguf::parse` promises.
pub fn parse(data: &[u8]) {
    let Ok(gguf) = Gguf::parse(data) else { return };
    let mut extents = Vec::new();
    for tensor in gguf.tensors() {
        let row_bytes = tensor.ggml_type().row_bytes(tensor.row_len()).expect("rows are whole blocks");
        assert_eq!(tensor.n_bytes(), row_bytes * tensor.n_rows(), "{tensor:?}");
        assert_eq!(tensor.n_elements(), tensor.row_len() * tensor.n_rows(), "{tensor:?}");
        assert_eq!(tensor.n_elements(), tensor.shape().iter().product::<u64>(), "{tensor:?}");
        assert_eq!(tensor.data().len() as u64, tensor.n_bytes(), "{tensor:?}");
        let found = gguf.tensor(tensor.name()).expect("its name finds a tensor");
        assert_eq!(found.file_offset(), tensor.file_offset(), "{tensor:?}");
        let extent = tensor.file_offset() as usize..(tensor.file_offset() + tensor.n_bytes()) as usize;
        assert_eq!(tensor.data(), &data[extent.clone()], "{tensor:?}");
        if !extent.is_empty() {
            assert_eq!(tensor.file_offset() % gguf.alignment(), 0, "{tensor:?}");
            extents.push(extent);
        }
    }
    extents.sort_by_key(|extent| extent.start);
    assert!(extents.is_sorted_by(|a, b| a.end <= b.start), "tensors overlap: {extents:?}");
    gguf.index().view([data]).expect("the index fits the bytes it was made from");
    let _ = split::join(vec![gguf]);
}

/// Reads every value as every type, and the index against bytes that changed.
pub fn getters(data: &[u8]) {
    let Ok(gguf) = Gguf::parse(data) else { return };
    read_all(&gguf.metadata());
    let changed: Vec<u8> = data.iter().map(|byte| byte ^ 0x55).collect();
    let changed = gguf.index().view([&changed[..]]).expect("only the length is compared");
    read_all(&changed.metadata());
    for tensor in changed.tensors() {
        assert_eq!(tensor.data().len() as u64, tensor.n_bytes());
        let _ = changed.tensor(tensor.name());
    }
}

fn read_all(metadata: &Metadata<'_>) {
    for (key, value) in metadata.iter() {
        read_as::<u8>(metadata, key);
        read_as::<i64>(metadata, key);
        read_as::<usize>(metadata, key);
        read_as::<f32>(metadata, key);
        read_as::<f64>(metadata, key);
        read_as::<bool>(metadata, key);
        read_as::<&[u8]>(metadata, key);
        read_as::<&str>(metadata, key);
        if let Ok(array) = Array::from_value(key, value) {
            assert!(array.iter().count() <= array.len());
            if let Ok(strings) = array.strings() {
                assert!(strings.count() <= array.len());
            }
        }
        let _ = format!("{value:?}");
    }
}

fn read_as<'a, T: FromValue<'a> + Clone>(metadata: &Metadata<'a>, key: &str) {
    let _ = metadata.required::<T>(key);
    let _ = metadata.required::<Vec<T>>(key);
    let _ = metadata.required::<Vec<Vec<T>>>(key);
    let _ = metadata.per_layer::<T>(key, 3);
}

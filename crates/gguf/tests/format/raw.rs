//! Builds files byte by byte, right or wrong ones, with none of the crate's own writing code.

use metallic_gguf::ByteOrder;

/// Ids of value types in a file.
pub(crate) const U8: u32 = 0;
pub(crate) const U16: u32 = 2;
pub(crate) const U32: u32 = 4;
pub(crate) const I32: u32 = 5;
pub(crate) const F32: u32 = 6;
pub(crate) const BOOL: u32 = 7;
pub(crate) const STRING: u32 = 8;
pub(crate) const ARRAY: u32 = 9;
pub(crate) const U64: u32 = 10;
pub(crate) const F64: u32 = 12;

/// Ids of tensor types in a file.
pub(crate) mod tensor_type {
    pub(crate) const F32: u32 = 0;
    pub(crate) const Q4_0: u32 = 2;
    pub(crate) const Q4_K: u32 = 12;
    pub(crate) const I8: u32 = 24;
}

/// Numbers and strings as a version and a byte order have them.
#[derive(Clone)]
pub(crate) struct Bytes {
    version: u32,
    byte_order: ByteOrder,
    pub(crate) out: Vec<u8>,
}

macro_rules! numbers {
    ($($name:ident: $type:ty)*) => {
        $(pub(crate) fn $name(&mut self, value: $type) -> &mut Self {
            let bytes = match self.byte_order {
                ByteOrder::Little => value.to_le_bytes(),
                ByteOrder::Big => value.to_be_bytes(),
            };
            self.raw(&bytes)
        })*
    };
}

impl Bytes {
    pub(crate) fn new(version: u32, byte_order: ByteOrder) -> Self {
        Bytes { version, byte_order, out: Vec::new() }
    }

    numbers! { u8: u8 i8: i8 u16: u16 i16: i16 u32: u32 i32: i32 u64: u64 i64: i64 f32: f32 f64: f64 }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// A count, a length or a dimension.
    pub(crate) fn length(&mut self, value: u64) -> &mut Self {
        if self.version == 1 { self.u32(value as u32) } else { self.u64(value) }
    }

    pub(crate) fn string(&mut self, value: impl AsRef<[u8]>) -> &mut Self {
        self.length(value.as_ref().len() as u64).raw(value.as_ref())
    }
}

/// A file in parts, with counts that may be made wrong.
#[derive(Clone)]
pub(crate) struct RawFile {
    blank: Bytes,
    pub(crate) n_tensors: u64,
    pub(crate) n_keys: u64,
    metadata: Bytes,
    directory: Bytes,
    data: Vec<u8>,
    alignment: usize,
}

impl RawFile {
    pub(crate) fn new() -> Self {
        Self::with_encoding(3, ByteOrder::Little)
    }

    pub(crate) fn with_encoding(version: u32, byte_order: ByteOrder) -> Self {
        let blank = Bytes::new(version, byte_order);
        RawFile {
            n_tensors: 0,
            n_keys: 0,
            metadata: blank.clone(),
            directory: blank.clone(),
            data: Vec::new(),
            alignment: 32,
            blank,
        }
    }

    /// Adds a key; `value` writes the value type and the value.
    pub(crate) fn key(mut self, key: impl AsRef<[u8]>, value: impl FnOnce(&mut Bytes) -> &mut Bytes) -> Self {
        value(self.metadata.string(key));
        self.n_keys += 1;
        self
    }

    pub(crate) fn alignment(mut self, alignment: u32) -> Self {
        self.alignment = alignment as usize;
        self.key("general.alignment", |b| b.u32(U32).u32(alignment))
    }

    /// Adds a tensor to the directory, not its data.
    pub(crate) fn tensor(
        mut self,
        name: impl AsRef<[u8]>,
        dims: &[u64],
        tensor_type: u32,
        offset: u64,
    ) -> Self {
        self.directory.string(name).u32(dims.len() as u32);
        for &dim in dims {
            self.directory.length(dim);
        }
        self.directory.u32(tensor_type).u64(offset);
        self.n_tensors += 1;
        self
    }

    /// Adds bytes to the data section.
    pub(crate) fn data(mut self, bytes: &[u8]) -> Self {
        self.data.extend_from_slice(bytes);
        self
    }

    fn header(&self) -> Bytes {
        let mut file = self.blank.clone();
        file.raw(b"GGUF").u32(self.blank.version).length(self.n_tensors).length(self.n_keys);
        file.raw(&self.metadata.out).raw(&self.directory.out);
        file
    }

    /// Where the data section begins.
    pub(crate) fn data_start(&self) -> usize {
        self.header().out.len().next_multiple_of(self.alignment)
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut file = self.header();
        if !self.data.is_empty() {
            file.out.resize(self.data_start(), 0);
            file.raw(&self.data);
        }
        file.out
    }
}

/// Every version in both byte orders.
pub(crate) fn encodings() -> impl Iterator<Item = (u32, ByteOrder)> {
    (1..=3).flat_map(|version| [ByteOrder::Little, ByteOrder::Big].map(|order| (version, order)))
}

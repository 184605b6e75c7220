//! How keys and values lie in pages, for writing and for reading.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};

use super::POSITIONS;
use super::blocks::{self, Blocks, Q4, Q8};
use super::element::{Element, nearest};
use crate::isa::Isa;
use crate::pool::ThreadPool;

/// Positions whose keys are transposed together.
pub(super) const GROUP: usize = 32;

/// Values below which storing costs less than waking the other threads.
const MIN_SHARED_VALUES: usize = 16 << 10;

/// The numbers that keys and values are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// 32-bit floats: nothing is rounded.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a 32-bit float. Queries and weights are rounded to it as well, which is what makes
    /// it fast where the CPU has AVX512_BF16.
    BF16,
    /// 8-bit blocks of 32. Queries are rounded to such as well, as they are for weights.
    Q8_0,
    /// 4-bit blocks of 32; queries are rounded to 8 bits.
    Q4_0,
}

impl KvType {
    /// All of them.
    pub const ALL: [KvType; 5] = [KvType::F32, KvType::F16, KvType::BF16, KvType::Q8_0, KvType::Q4_0];

    /// Lower-case name, as flags and logs show it.
    pub const fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::BF16 => "bf16",
            KvType::Q8_0 => "q8_0",
            KvType::Q4_0 => "q4_0",
        }
    }

    /// Columns that a query of `dim` numbers becomes: numbers, pairs, or what [`blocks`] makes of it.
    pub(super) fn n_columns(self, dim: usize) -> usize {
        match self {
            KvType::F32 | KvType::F16 => dim,
            KvType::BF16 => dim.div_ceil(2),
            KvType::Q8_0 | KvType::Q4_0 => dim.div_ceil(blocks::LEN) * blocks::QUERY_COLUMNS,
        }
    }

    /// Bytes of a key and of a value, of so many numbers.
    fn row_bytes(self, [key, value]: [usize; 2]) -> Option<[usize; 2]> {
        // A whole number of blocks, filled up with zeros.
        let of_blocks = |bytes: usize| {
            let row = |n: usize| n.div_ceil(blocks::LEN).checked_mul(bytes);
            Some([row(key)?, row(value)?])
        };
        Some(match self {
            KvType::F32 => [key.checked_mul(4)?, value.checked_mul(4)?],
            KvType::F16 => [key.checked_mul(2)?, value.checked_mul(2)?],
            // Pairs of columns.
            KvType::BF16 => [key.checked_next_multiple_of(2)?.checked_mul(2)?, value.checked_mul(2)?],
            KvType::Q8_0 => of_blocks(Q8::BYTES)?,
            KvType::Q4_0 => of_blocks(Q4::BYTES)?,
        })
    }
}

impl FromStr for KvType {
    type Err = UnknownKvType;

    fn from_str(name: &str) -> Result<Self, UnknownKvType> {
        Self::ALL.into_iter().find(|kv_type| kv_type.name() == name).ok_or(UnknownKvType)
    }
}

/// No [`KvType`] has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownKvType;

impl fmt::Display for UnknownKvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys and values are kept as one of {}", KvType::ALL.map(KvType::name).join(", "))
    }
}

impl std::error::Error for UnknownKvType {}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the pages of a layer look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    kv_type: KvType,
    page_len: usize,
    n_head_kv: usize,
    /// Numbers and bytes of a key, and of a value.
    head_dims: [usize; 2],
    row_bytes: [usize; 2],
}

impl KvLayout {
    /// Pages of `page_len` positions with `n_head_kv` heads of `head_dim_k` numbers in a key and
    /// `head_dim_v` in a value; `None` where a page is larger than the address space.
    ///
    /// # Panics
    /// If `page_len` is not a multiple of 128.
    pub fn new(
        kv_type: KvType,
        page_len: usize,
        n_head_kv: usize,
        head_dim_k: usize,
        head_dim_v: usize,
    ) -> Option<Self> {
        assert!(page_len.is_multiple_of(POSITIONS), "pages of whole steps");
        let head_dims = [head_dim_k, head_dim_v];
        let row_bytes = kv_type.row_bytes(head_dims)?;
        for bytes in row_bytes {
            bytes.checked_mul(page_len)?.checked_mul(n_head_kv)?;
        }
        Some(Self { kv_type, page_len, n_head_kv, head_dims, row_bytes })
    }

    /// The numbers.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Positions in a page.
    pub fn page_len(&self) -> usize {
        self.page_len
    }

    /// Key and value heads.
    pub fn n_head_kv(&self) -> usize {
        self.n_head_kv
    }

    /// Length of a key, and of a value.
    pub fn head_dims(&self) -> [usize; 2] {
        self.head_dims
    }

    /// Bytes of a page of keys, and of a page of values.
    pub fn page_bytes(&self) -> [usize; 2] {
        self.head_bytes().map(|bytes| self.n_head_kv * bytes)
    }

    /// Bytes of one head in a page of keys, and in a page of values.
    fn head_bytes(&self) -> [usize; 2] {
        self.row_bytes.map(|bytes| self.page_len * bytes)
    }
}

/// The keys and values of a head for the positions of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub(super) number: usize,
    pub(super) keys: &'a [u8],
    pub(super) values: &'a [u8],
    /// The keys that are read after these values, where that is known.
    pub(super) next: &'a [u8],
}

/// What a sequence attends to in one layer, for reading.
#[derive(Clone, Copy, Debug)]
pub struct KvView<'a> {
    /// What a page looks like.
    pub layout: KvLayout,
    /// All pages of keys.
    pub keys: &'a [u8],
    /// All pages of values.
    pub values: &'a [u8],
    /// The sequence's pages: position `p` is in page `table[p / page_len]`.
    pub table: &'a [u32],
}

impl<'a> KvView<'a> {
    /// The keys and the values of a head for the [`POSITIONS`] positions of a step.
    pub(super) fn step(&self, number: usize, head: usize) -> Step<'a> {
        let KvLayout { page_len, n_head_kv, row_bytes, .. } = self.layout;
        let (page, in_page) = (number * POSITIONS / page_len, number * POSITIONS % page_len);
        let first = (self.table[page] as usize * n_head_kv + head) * page_len + in_page;
        let rows = |slab: &'a [u8], bytes: usize| &slab[first * bytes..(first + POSITIONS) * bytes];
        let [keys, values] = [rows(self.keys, row_bytes[0]), rows(self.values, row_bytes[1])];
        Step { number, keys, values, next: keys }
    }
}

/// The pages of one layer, for writing.
#[derive(Debug)]
pub struct KvPages<'a> {
    /// What a page looks like.
    pub layout: KvLayout,
    /// All pages of keys.
    pub keys: &'a mut [u8],
    /// All pages of values.
    pub values: &'a mut [u8],
    /// The sequence's pages: position `p` is in page `table[p / page_len]`.
    pub table: &'a [u32],
}

impl KvPages<'_> {
    /// Stores keys and values, rounded to the nearest numbers: for each position from `first` on, `keys` and
    /// `values` have a row of `n_head_kv` heads.
    ///
    /// # Panics
    /// If the table or a slab ends before the last position, or `keys` and `values` are not whole rows for
    /// the same number of positions.
    pub fn store(&mut self, pool: &ThreadPool, isa: Isa, first: usize, keys: &[f32], values: &[f32]) {
        let KvLayout { kv_type, page_len, n_head_kv, head_dims: [head_dim_k, head_dim_v], .. } = self.layout;
        let n = keys.len() / (n_head_kv * head_dim_k);
        assert_eq!(keys.len(), n * n_head_kv * head_dim_k, "whole rows of keys");
        assert_eq!(values.len(), n * n_head_kv * head_dim_v, "a row of values for each of keys");
        if n == 0 {
            return;
        }
        let (store_keys, store_values): (Store, Store) = match kv_type {
            KvType::F32 => (transpose::<f32>, copy::<f32>),
            KvType::F16 => (transpose::<f16>, copy::<f16>),
            KvType::BF16 => (transpose::<[bf16; 2]>, pair_up),
            KvType::Q8_0 => (interleave::<Q8>, encode::<Q8>),
            KvType::Q4_0 => (interleave::<Q4>, encode::<Q4>),
        };
        let [key_bytes, value_bytes] = self.layout.head_bytes();
        let pages = &self.table[first / page_len..=(first + n - 1) / page_len];
        let jobs = heads_of(self.keys, key_bytes, n_head_kv, pages)
            .map(|(i, head, bytes)| (i, head, bytes, keys, head_dim_k, store_keys))
            .chain(
                heads_of(self.values, value_bytes, n_head_kv, pages)
                    .map(|(i, head, bytes)| (i, head, bytes, values, head_dim_v, store_values)),
            );
        let start = first / page_len * page_len;
        let run = |(i, head, bytes, rows, dim, store): (usize, usize, &mut [u8], &[f32], usize, Store)| {
            let page_start = start + i * page_len;
            let begin = first.max(page_start);
            let end = (first + n).min(page_start + page_len);
            let rows = &rows[(begin - first) * n_head_kv * dim..(end - first) * n_head_kv * dim];
            store(
                isa,
                bytes,
                begin - page_start,
                Rows { rows, width: n_head_kv * dim, head: head * dim, dim },
            );
        };
        if keys.len() + values.len() < MIN_SHARED_VALUES {
            return jobs.for_each(run);
        }
        let jobs = Mutex::new(jobs);
        pool.run(&|_| {
            loop {
                let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(job) = next else { break };
                run(job);
            }
        });
    }
}

/// Those heads of a slab that belong to `pages`: with the place of their page among these, and their number.
fn heads_of<'a>(
    slab: &'a mut [u8],
    head_bytes: usize,
    n_heads: usize,
    pages: &'a [u32],
) -> impl Iterator<Item = (usize, usize, &'a mut [u8])> {
    let last = pages.iter().max().map_or(0, |&page| page as usize + 1);
    let slab = &mut slab[..last * n_heads * head_bytes];
    slab.chunks_exact_mut(head_bytes).enumerate().filter_map(move |(i, bytes)| {
        let place = pages.iter().position(|&page| page as usize == i / n_heads)?;
        Some((place, i % n_heads, bytes))
    })
}

/// Writes rows to a head of a page, from a position in the page on.
type Store = fn(Isa, &mut [u8], usize, Rows<'_>);

/// One head of consecutive rows.
#[derive(Clone, Copy)]
struct Rows<'a> {
    rows: &'a [f32],
    width: usize,
    /// Where the head begins in a row.
    head: usize,
    dim: usize,
}

impl<'a> Rows<'a> {
    fn iter(self) -> impl Iterator<Item = &'a [f32]> {
        self.rows.chunks_exact(self.width).map(move |row| &row[self.head..self.head + self.dim])
    }
}

/// Values: as they come.
fn copy<E: Element>(_isa: Isa, out: &mut [u8], first: usize, rows: Rows<'_>) {
    let mut rounded = [E::default(); GROUP];
    let out = &mut out[first * rows.dim * E::BYTES..];
    for (row, out) in rows.iter().zip(out.chunks_exact_mut(rows.dim * E::BYTES)) {
        for (x, out) in row.chunks(GROUP).zip(out.chunks_mut(GROUP * E::BYTES)) {
            let rounded = &mut rounded[..x.len()];
            E::round(x, rounded);
            rounded.iter().zip(out.chunks_exact_mut(E::BYTES)).for_each(|(x, out)| x.write(out));
        }
    }
}

/// Values of two positions together.
fn pair_up(_isa: Isa, out: &mut [u8], first: usize, rows: Rows<'_>) {
    for (i, row) in rows.iter().enumerate() {
        let (pair, second) = ((first + i) / 2, (first + i) % 2 == 1);
        let out = &mut out[pair * rows.dim * 4..][..rows.dim * 4];
        for (&x, out) in row.iter().zip(out.as_chunks_mut::<2>().0.as_chunks_mut::<2>().0) {
            out[usize::from(second)] = nearest(x).to_ne_bytes();
            if !second {
                // Read with the first, and not seen before it is stored: it must be a number.
                out[1] = [0; 2];
            }
        }
    }
}

/// Keys: the columns, or pairs of columns, of 32 positions, one after another.
fn transpose<E: Element>(_isa: Isa, out: &mut [u8], first: usize, rows: Rows<'_>) {
    let group_bytes = rows.dim.div_ceil(E::NUMBERS) * GROUP * E::BYTES;
    let mut rounded = [E::default(); GROUP];
    for (i, row) in rows.iter().enumerate() {
        let (group, in_group) = ((first + i) / GROUP, (first + i) % GROUP);
        let out = &mut out[group * group_bytes..][..group_bytes];
        for (x, out) in row.chunks(GROUP * E::NUMBERS).zip(out.chunks_mut(GROUP * GROUP * E::BYTES)) {
            let rounded = &mut rounded[..x.len().div_ceil(E::NUMBERS)];
            E::round(x, rounded);
            for (x, column) in rounded.iter().zip(out.chunks_exact_mut(GROUP * E::BYTES)) {
                x.write(&mut column[in_group * E::BYTES..][..E::BYTES]);
            }
        }
    }
}

/// Values: the blocks of each position, one after another.
fn encode<B: Blocks>(isa: Isa, out: &mut [u8], first: usize, rows: Rows<'_>) {
    let encode = B::encode(isa);
    let out = &mut out[first * rows.dim.div_ceil(blocks::LEN) * B::BYTES..];
    let to = rows.iter().flat_map(|row| row.chunks(blocks::LEN)).zip(out.chunks_exact_mut(B::BYTES));
    to.for_each(|(x, block)| encode(&blocks::whole(x), block));
}

/// Keys: the blocks of 32 positions interleaved, see [`blocks`].
fn interleave<B: Blocks>(isa: Isa, out: &mut [u8], first: usize, rows: Rows<'_>) {
    let (encode, mut block) = (B::encode(isa), [0; blocks::MAX_BYTES]);
    let block = &mut block[..B::BYTES];
    let group_bytes = rows.dim.div_ceil(blocks::LEN) * GROUP * B::BYTES;
    for (i, row) in rows.iter().enumerate() {
        let (group, in_group) = ((first + i) / GROUP, (first + i) % GROUP);
        let panels = out[group * group_bytes..][..group_bytes].chunks_exact_mut(GROUP * B::BYTES);
        for (x, panel) in row.chunks(blocks::LEN).zip(panels) {
            encode(&blocks::whole(x), block);
            blocks::put(block, in_group, panel);
        }
    }
}

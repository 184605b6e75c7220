//! Keys and values, and attention to them.

use half::{bf16, f16};
use metallic_gguf::GgmlType;
use metallic_kernels::{Isa, registry};

use super::computation::{Computation, buffer, optional, random, values};
use super::products::NOTHING;
use super::suite::{Bound, Suite};
use crate::backend::{AttentionParams, AttentionShape, Backend, Cpu, KvLayout, KvType, Needs, Span};
use crate::error::Result;

const PAGE_LEN: usize = 128;

/// Pages of the longer of two sequences, out of order, and of the shorter.
const PAGES: [&[u32]; 2] = [&[4, 1, 2], &[3]];

/// The page of five that neither has.
const FREE_PAGE: u32 = 0;

/// Positions of the longer; the shorter has the rows of the batch after it.
const N: usize = 300;
const N_ROWS: usize = N + 33;

/// Rows that come at a time: odd beginnings and ends, single ones, none, and pages that are crossed.
const PIECES: [usize; 10] = [1, 1, 3, 122, 0, 4, 1, 130, 7, 31];

/// First queries and how many, of the longer sequence, where not all are needed: in the first pages, across two, and the last.
const SOME: [(usize, usize); 3] = [(0, 19), (117, 24), (N - 33, 33)];

/// Lengths of heads of keys and of values: blocks that are full or not, more than a workgroup, and a latent vector.
const LENGTHS: [[usize; 2]; 9] =
    [[64, 64], [32, 64], [64, 32], [80, 80], [96, 96], [128, 128], [256, 256], [23, 33], [576, 512]];

/// Heads of queries, and of keys and values; and whether rows attend as those of a prompt that is multiplied in tiles.
const GROUPINGS: [(usize, usize, bool); 3] = [(6, 2, true), (1, 1, false), (5, 1, false)];

/// Numbers that share a scale, in the types that have scales.
const BLOCK_LEN: usize = 32;

/// Which queries attend, and when.
#[derive(Clone, Copy, PartialEq)]
enum Queries {
    /// Some of the longer sequence and all of the shorter, at the end.
    Some,
    /// All, at the end.
    All,
    /// All, in the pieces that keys and values are stored in.
    InPieces,
}

/// How a page is moved, if it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moves {
    No,
    Copied,
    SavedAndLoaded,
}

/// A layer over two sequences.
#[derive(Clone)]
struct Layer {
    kv_type: KvType,
    shape: AttentionShape,
    n_head_kv: usize,
    has_sinks: bool,
    in_tiles: bool,
    /// How a page of the longer sequence is moved before its queries attend.
    moves: Moves,
    queries: Queries,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Layer {
    /// With random keys and values.
    fn new(kv_type: KvType, shape: AttentionShape, n_head_kv: usize) -> Self {
        let AttentionShape { key_length, value_length, .. } = shape;
        let rows = |seed, length: usize| random(seed, N_ROWS * n_head_kv * length);
        let (keys, values) = (rows(33, key_length), rows(34, value_length));
        Self {
            kv_type,
            shape,
            n_head_kv,
            has_sinks: false,
            in_tiles: false,
            moves: Moves::No,
            queries: Queries::Some,
            keys,
            values,
        }
    }

    fn layout(&self) -> KvLayout {
        let AttentionShape { key_length, value_length, .. } = self.shape;
        let layout = KvLayout::new(self.kv_type, PAGE_LEN, self.n_head_kv, key_length, value_length);
        layout.expect("a small page")
    }

    /// A span of either sequence.
    fn span(&self, sequence: usize, start: usize, n_rows: usize) -> Span<'static> {
        let (first_row, pages) = (sequence * N + start, PAGES[sequence]);
        Span { first_row, n_rows, start, pages, slot: sequence, in_tiles: self.in_tiles }
    }

    /// Whether the backend has it.
    fn is_taken<B: Backend>(&self, backend: &B) -> bool {
        let attention = [(self.shape.n_head, self.layout())];
        let needs = Needs { attention: &attention, n_positions: N, n_pages: 5, ..NOTHING };
        backend.check(&needs, &[]).is_ok()
    }
}

impl Computation for Layer {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let AttentionShape { n_head, key_length, value_length, .. } = self.shape;
        let layout = self.layout();
        let mut kv = b.kv_layer(&layout, 5)?;
        b.reserve_attention(&[(n_head, layout)], N)?;
        let (keys, rows) = (buffer(b, &self.keys)?, buffer(b, &self.values)?);
        let queries = buffer(b, &random(30, N_ROWS * n_head * key_length))?;
        let mut out = buffer(b, &random(31, N_ROWS * n_head * value_length))?;
        let sinks = optional(b, self.has_sinks.then(|| random(21, n_head)))?;
        let params = AttentionParams { shape: self.shape, sinks: sinks.as_ref() };
        let ends = [N, N_ROWS - N];
        let mut starts = [0, 0];
        for n_rows in PIECES {
            for sequence in 0..2 {
                let start = starts[sequence];
                let span = self.span(sequence, start, n_rows.min(ends[sequence] - start));
                starts[sequence] += span.n_rows;
                b.store_kv(&mut kv, &span, &keys, &rows);
                if self.queries == Queries::InPieces {
                    b.attention(&params, &kv, &span, &queries, &mut out);
                }
            }
        }
        assert_eq!(starts, ends, "pieces of whole sequences");
        // A page of the longer sequence to the one that is free; then that takes its place.
        let mut moved = PAGES[0].to_vec();
        if self.moves != Moves::No {
            let mut saved = Vec::new();
            if self.moves == Moves::Copied {
                b.copy_page(&mut kv, moved[1], FREE_PAGE);
            } else {
                let mut sink = |bytes: &[u8]| {
                    saved.extend_from_slice(bytes);
                    Ok(())
                };
                b.save_page(&kv, moved[1], &mut sink)?;
                assert_eq!(saved.len(), layout.page_bytes().iter().sum::<usize>(), "bytes of a page");
            }
            let over = self.span(1, 0, N_ROWS - N);
            b.store_kv(&mut kv, &Span { pages: &[moved[1]], ..over }, &keys, &rows);
            if self.moves == Moves::SavedAndLoaded {
                let mut saved = &saved[..];
                let mut source = |bytes: &mut [u8]| {
                    let (these, rest) = saved.split_at(bytes.len());
                    bytes.copy_from_slice(these);
                    saved = rest;
                    Ok(())
                };
                b.load_page(&mut kv, FREE_PAGE, &mut source)?;
                assert!(saved.is_empty(), "as many bytes are loaded as were saved");
            }
            moved[1] = FREE_PAGE;
        }
        let spans: &[_] = match self.queries {
            Queries::Some => &SOME,
            Queries::All => &[(0, N)],
            Queries::InPieces => &[],
        };
        for &(start, n_rows) in spans {
            let span = Span { pages: &moved, ..self.span(0, start, n_rows) };
            b.attention(&params, &kv, &span, &queries, &mut out);
        }
        if !spans.is_empty() {
            b.attention(&params, &kv, &self.span(1, 0, N_ROWS - N), &queries, &mut out);
        }
        values(b, &out, N_ROWS * n_head * value_length)
    }

    /// Over the numbers that the CPU rounds keys and values to.
    fn reference(&self, cpu: &mut Cpu) -> Result<Vec<f32>> {
        let AttentionShape { key_length, value_length, .. } = self.shape;
        let keys = rounded(self.kv_type, &self.keys, key_length);
        let values = rounded(self.kv_type, &self.values, value_length);
        Layer { kv_type: KvType::F32, keys, values, ..self.clone() }.run(cpu)
    }
}

/// Heads as a type keeps them: each is filled up with zeros to whole blocks.
fn rounded(kv_type: KvType, rows: &[f32], head_len: usize) -> Vec<f32> {
    match kv_type {
        KvType::F32 => rows.to_vec(),
        KvType::F16 => rows.iter().map(|x| f16::from_f32(*x).to_f32()).collect(),
        KvType::BF16 => rows.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
        KvType::Q8_0 => rounded_to_blocks(GgmlType::Q8_0, rows, head_len),
        KvType::Q4_0 => rounded_to_blocks(GgmlType::Q4_0, rows, head_len),
    }
}

fn rounded_to_blocks(ggml_type: GgmlType, rows: &[f32], head_len: usize) -> Vec<f32> {
    let ops = registry::ops(ggml_type, Isa::Scalar);
    let encode = ops.encode.expect("a type that can be made");
    let padded_len = head_len.next_multiple_of(BLOCK_LEN);
    let mut blocks = vec![0; padded_len / BLOCK_LEN * ggml_type.block_bytes()];
    let heads = rows.chunks_exact(head_len).flat_map(|head| {
        let mut padded = head.to_vec();
        padded.resize(padded_len, 0.0);
        encode(&padded, &mut blocks);
        (ops.decode)(&blocks, &mut padded);
        padded.truncate(head_len);
        padded
    });
    heads.collect()
}

/// Ordinary numbers, and heads of those that rounding is hard for: halves, where the scale is 1; zeros; scales that are no
/// normal number in half precision, too small for one, and large.
fn hard(rows: &mut [f32], head_len: usize) {
    for (i, head) in rows.chunks_exact_mut(head_len).enumerate() {
        match i % 9 {
            1 => {
                for (j, x) in head.iter_mut().enumerate() {
                    let half = (j * 7 % 127) as f32 + 0.5;
                    *x = if j % BLOCK_LEN == 0 { 127.0 } else { half * [1.0, -1.0][j % 2] };
                }
            }
            3 => head.fill(0.0),
            5 => head.iter_mut().for_each(|x| *x *= 1e-4),
            6 => head.iter_mut().for_each(|x| *x *= 1e-7),
            7 => head.iter_mut().for_each(|x| *x *= 6e4),
            8 => head[0] *= 50.0,
            _ => {}
        }
    }
}

/// What each number may be off where quotients are not exact: a step of its block, and what a number in half precision is off
/// by that is no normal one.
fn steps(kv_type: KvType, rows: &[f32], head_len: usize) -> Vec<f32> {
    let n_steps = match kv_type {
        KvType::Q8_0 => 127.0,
        KvType::Q4_0 => 8.0,
        KvType::F16 => return vec![f32::powi(2.0, -14); rows.len()],
        KvType::F32 | KvType::BF16 => return vec![0.0; rows.len()],
    };
    let blocks = rows.chunks_exact(head_len).flat_map(|head| head.chunks(BLOCK_LEN));
    let step = |block: &[f32]| {
        let largest = block.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        vec![1.01 * largest / n_steps + n_steps * f32::powi(2.0, -24); block.len()]
    };
    blocks.flat_map(step).collect()
}

fn shape([key_length, value_length]: [usize; 2], n_head: usize) -> AttentionShape {
    let scale = 4.0 / (key_length as f32).sqrt();
    AttentionShape { n_head, key_length, value_length, scale, window: None, softcap: None, alibi: None }
}

pub(super) fn check<B: Backend>(suite: &mut Suite<'_, B>) {
    for kv_type in KvType::ALL {
        for (i, lengths) in LENGTHS.into_iter().enumerate() {
            let layer = Layer::new(kv_type, shape(lengths, 2), 2);
            let what = format!("{kv_type}, heads of {lengths:?}");
            if !layer.is_taken(suite.backend) {
                refused(suite, &what, &layer);
                continue;
            }
            stored(suite, &what, layer);
            let groupings: &[_] = if suite.full || i == 0 { &GROUPINGS } else { &[(2, 1, true)] };
            for &(n_head, n_head_kv, in_tiles) in groupings {
                let layer = Layer { in_tiles, ..Layer::new(kv_type, shape(lengths, n_head), n_head_kv) };
                suite.attention(&format!("{n_head} of {n_head_kv} {what}"), &layer);
            }
        }
        variants(suite, kv_type);
    }
}

impl<B: Backend> Suite<'_, B> {
    fn attention(&mut self, what: &str, layer: &Layer) {
        let bound = if layer.kv_type == KvType::F32 { self.bounds.floats } else { self.bounds.kv };
        let tiles = if layer.in_tiles { ", in tiles" } else { "" };
        self.compare("attention", format!("{what}{tiles}"), Bound::Nmse(bound), layer);
    }
}

fn refused<B: Backend>(suite: &mut Suite<'_, B>, what: &str, layer: &Layer) {
    suite.hold("kv_layer", format!("{what}, which is refused"), |backend, _| {
        let made = backend.kv_layer(&layer.layout(), 5);
        Ok(made.err().map(|_| ()).ok_or_else(|| "made, but `check` refuses it".to_owned()))
    });
    suite.refused("kv_layer", what);
}

/// A query that sees its own position alone gives the value that was stored there.
fn stored<B: Backend>(suite: &mut Suite<'_, B>, what: &str, mut layer: Layer) {
    suite.hold("kv_layer", what, |backend, _| backend.kv_layer(&layer.layout(), 5).map(|_| Ok(())));
    let (kv_type, head_len) = (layer.kv_type, layer.shape.value_length);
    hard(&mut layer.values, head_len);
    (layer.shape.window, layer.queries) = (Some(1), Queries::All);
    let bound = if suite.bounds.divides_exactly {
        Bound::Exact
    } else {
        Bound::Steps(steps(kv_type, &layer.values, head_len))
    };
    suite.compare("store_kv", what, bound, &layer);
}

/// Whatever changes scores, of heads whose number is no power of two.
fn variants<B: Backend>(suite: &mut Suite<'_, B>, kv_type: KvType) {
    let plain = shape([64, 64], 6);
    let all = AttentionShape { window: Some(45), softcap: Some(2.0), alibi: Some(8.0), ..plain };
    for (name, shape, has_sinks) in [
        ("a window", AttentionShape { window: Some(70), ..plain }, false),
        ("a window of a page", AttentionShape { window: Some(PAGE_LEN), ..plain }, false),
        ("capped scores", AttentionShape { softcap: Some(2.0), ..plain }, false),
        ("linear biases", AttentionShape { alibi: Some(8.0), ..plain }, false),
        ("sinks", plain, true),
        ("all of these", all, true),
    ] {
        let layer = Layer { has_sinks, ..Layer::new(kv_type, shape, 2) };
        if layer.is_taken(suite.backend) {
            suite.attention(&format!("6 of 2 {kv_type}, {name}"), &layer);
        }
    }
    let layer = Layer { has_sinks: true, ..Layer::new(kv_type, all, 2) };
    if !layer.is_taken(suite.backend) {
        return;
    }
    let stays = Layer { queries: Queries::All, ..layer.clone() };
    for (operation, moves) in [
        ("copy_page", Moves::Copied),
        ("save_page", Moves::SavedAndLoaded),
        ("load_page", Moves::SavedAndLoaded),
    ] {
        let moves = Layer { moves, ..stays.clone() };
        suite.same_bits(operation, kv_type, [&stays, &moves]);
    }
    for in_tiles in [false, true] {
        let whole = Layer { in_tiles, queries: Queries::All, ..layer.clone() };
        let pieces = Layer { queries: Queries::InPieces, ..whole.clone() };
        let tiles = if in_tiles { " in tiles" } else { "" };
        suite.same_bits("attention", format!("6 of 2 {kv_type}, in pieces{tiles}"), [&whole, &pieces]);
    }
}

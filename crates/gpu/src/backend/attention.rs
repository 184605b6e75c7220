//! Keys and values, attention, and rotations.

use std::ops::Range;

use metallic::backend::{AttentionParams, ByteSink, ByteSource, KvLayout, RopeConfig, RopePairs, Span};
use metallic_kernels::rope::{Rope, RopeParams};

use super::Gpu;
use crate::error::{Error, Result};
use crate::kernels::{self, Call, Grid, KvFormat};
use crate::memory::{GpuBuffer, Vram};
use crate::recorder::{NOTES_WORDS, Note};

/// Values of a head at most: the query and the sums of a head are in memory that a workgroup shares. `MAX_LEN` in
/// `attention.wgsl`.
const MAX_HEAD_LEN: usize = 1024;

/// Words of a page that are handed over at a time.
const PIECE_WORDS: usize = 64 << 10;

/// Keys and values of one layer, in pages: `[page][head][position][word]`, each row of a head whole words. Of types whose
/// numbers share scales, the scales of a head follow its numbers; see `shaders/kv/scales.wgsl`.
pub struct GpuKvLayer {
    layout: KvLayout,
    format: &'static KvFormat,
    keys: Rows,
    values: Rows,
}

/// The keys, or the values.
struct Rows {
    /// Numbers of a row of a head.
    head_len: usize,
    /// Words that these are kept in.
    row_words: usize,
    /// Words of a head in a page.
    head_words: usize,
    buffer: GpuBuffer,
}

/// The rotations of one batch. The angles are computed on the host: those of late positions need double precision.
pub struct GpuRope {
    rope: Rope,
    pairs: RopePairs,
    /// Of each row the cosines, then the sines.
    pub(super) angles: GpuBuffer,
}

impl GpuKvLayer {
    /// Whether there are kernels for it, and it is not larger than they see.
    pub(super) fn check(layout: &KvLayout, n_pages: usize, vram: &Vram) -> Result<()> {
        Self::sizes(layout, n_pages, vram).map(|_| ())
    }

    /// How it is kept, and words of a head in a page of keys and in one of values: as many as the plan charges.
    fn sizes(layout: &KvLayout, n_pages: usize, vram: &Vram) -> Result<(&'static KvFormat, [usize; 2])> {
        let kv_type = layout.kv_type();
        let format = kernels::kv_format_of(kv_type)
            .ok_or_else(|| Error::unsupported(format!("attention over keys and values of type {kv_type}")))?;
        let head_words = layout.page_bytes().map(|bytes| bytes / 4 / layout.n_head_kv());
        for (head_len, head_words) in layout.head_dims().into_iter().zip(head_words) {
            if head_len > MAX_HEAD_LEN {
                return Err(Error::unsupported(format!("attention with heads of {head_len} values")));
            }
            // A row that ends within a word would take more than the plan charges for it.
            if format.row_words(head_len) * layout.page_len() > head_words {
                let reason = format!("attention with heads of {head_len} values of type {kv_type}");
                return Err(Error::unsupported(reason));
            }
            let words = head_words.saturating_mul(layout.n_head_kv()).saturating_mul(n_pages);
            vram.check_words("the keys or the values of a layer", words)?;
        }
        Ok((format, head_words))
    }

    pub(super) fn new(layout: &KvLayout, n_pages: usize, vram: &Vram) -> Result<Self> {
        let (format, head_words) = Self::sizes(layout, n_pages, vram)?;
        let rows = |i: usize| {
            let (head_len, head_words) = (layout.head_dims()[i], head_words[i]);
            let buffer = vram.words("the KV cache", head_words * layout.n_head_kv() * n_pages)?;
            Ok(Rows { head_len, row_words: format.row_words(head_len), head_words, buffer })
        };
        Ok(Self { layout: *layout, format, keys: rows(0)?, values: rows(1)? })
    }
}

impl Rows {
    /// The words of a page, in pieces.
    fn pieces(&self, kv: &GpuKvLayer, page: u32) -> impl Iterator<Item = Range<usize>> {
        let n_words = self.head_words * kv.layout.n_head_kv();
        let (first, end) = (page as usize * n_words, (page as usize + 1) * n_words);
        (first..end).step_by(PIECE_WORDS).map(move |start| start..end.min(start + PIECE_WORDS))
    }
}

impl GpuRope {
    pub(super) fn new(
        config: &RopeConfig,
        factors: Option<&[f32]>,
        max_rows: usize,
        vram: &Vram,
    ) -> Result<Self> {
        let params = RopeParams {
            pairs: config.pairs,
            n_rot: config.n_rot,
            base: config.freq_base,
            scale: config.freq_scale,
            factors,
            attn_factor: config.attn_factor,
            yarn: config.yarn,
        };
        let angles = vram.words("rotations", config.n_rot * max_rows)?;
        Ok(Self { rope: Rope::new(&params), pairs: config.pairs, angles })
    }

    /// Values of a head that are rotated.
    pub(super) fn n_rot(&self) -> usize {
        self.rope.n_rot()
    }

    /// From the first value of a pair to the second, and from a pair to the next.
    pub(super) fn places(&self) -> [usize; 2] {
        match self.pairs {
            RopePairs::Adjacent => [1, 2],
            RopePairs::Halves => [self.n_rot() / 2, 1],
        }
    }
}

impl Gpu {
    pub(super) fn make_angles(&mut self, rope: &GpuRope, positions: &[u32]) -> Result<()> {
        let n_rot = rope.n_rot();
        let rows = NOTES_WORDS / n_rot.max(1);
        for (i, positions) in positions.chunks(rows).enumerate().filter(|_| n_rot > 0) {
            let mut angles = vec![0.0; positions.len() * n_rot];
            for (&position, angles) in positions.iter().zip(angles.chunks_exact_mut(n_rot)) {
                rope.rope.angles(position as usize, angles);
            }
            self.take_notes(&angles, &rope.angles, i * rows * n_rot)?;
        }
        Ok(())
    }

    pub(super) fn store(&mut self, kv: &GpuKvLayer, span: &Span<'_>, rows: [&GpuBuffer; 2]) -> Result<()> {
        let n_heads = kv.layout.n_head_kv();
        let ([pages_at], notes) = self.note_pages(kv, span)?;
        let end = span.start + span.n_rows;
        for (kept, rows) in [&kv.keys, &kv.values].into_iter().zip(rows) {
            // An invocation writes a word, or the blocks of two positions whose scales share a word.
            let len = match kv.format.block_len {
                1 => span.n_rows * n_heads * kept.row_words,
                block_len => {
                    let n_pairs = end.div_ceil(2) - span.start / 2;
                    n_pairs * n_heads * kept.head_len.div_ceil(block_len)
                }
            };
            let params = [
                len,
                span.first_row,
                span.n_rows,
                span.start,
                n_heads,
                kept.head_len,
                kept.row_words,
                kept.head_words,
                kv.layout.page_len(),
                pages_at,
            ]
            .map(|n| n as u32);
            let rows = rows.expect((span.first_row + span.n_rows) * n_heads * kept.head_len);
            let buffers = [&kept.buffer, rows, &notes];
            let call = Call::new(kv.format.store, &buffers, &params, Grid::Values(len));
            self.run(&Call { decoder: Some(&kv.format.decoder), ..call })?;
        }
        Ok(())
    }

    pub(super) fn copy_kv_page(&mut self, kv: &GpuKvLayer, from: u32, to: u32) -> Result<()> {
        for kept in [&kv.keys, &kv.values] {
            let len = kept.head_words * kv.layout.n_head_kv();
            let params = [len, from as usize * len, to as usize * len].map(|n| n as u32);
            self.run(&Call::new(&kernels::COPY_PAGE, &[&kept.buffer], &params, Grid::Values(len)))?;
        }
        Ok(())
    }

    pub(super) fn save_kv_page(
        &mut self,
        kv: &GpuKvLayer,
        page: u32,
        sink: ByteSink<'_>,
    ) -> metallic::Result<()> {
        let mut words = vec![0_u32; PIECE_WORDS];
        let mut bytes = Vec::with_capacity(4 * PIECE_WORDS);
        for kept in [&kv.keys, &kv.values] {
            for piece in kept.pieces(kv, page) {
                let words = &mut words[..piece.len()];
                self.checked(|gpu| {
                    gpu.recorder.get_mut().read_words(&kept.buffer, piece.start, words, |word| word)
                })?;
                bytes.clear();
                bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
                sink(&bytes)?;
            }
        }
        Ok(())
    }

    pub(super) fn load_kv_page(
        &mut self,
        kv: &GpuKvLayer,
        page: u32,
        source: ByteSource<'_>,
    ) -> metallic::Result<()> {
        let mut bytes = vec![0; 4 * PIECE_WORDS];
        for kept in [&kv.keys, &kv.values] {
            for piece in kept.pieces(kv, page) {
                let bytes = &mut bytes[..4 * piece.len()];
                source(bytes)?;
                let offset = 4 * piece.start as u64;
                self.checked(|gpu| gpu.recorder.get_mut().write(bytes, &kept.buffer, offset))?;
            }
        }
        Ok(())
    }

    pub(super) fn attend(
        &mut self,
        params: &AttentionParams<'_, Self>,
        kv: &GpuKvLayer,
        span: &Span<'_>,
        queries: &GpuBuffer,
        out: &GpuBuffer,
    ) -> Result<()> {
        let (shape, nothing) = (params.shape, self.nothing.clone());
        let ([pages_at], notes) = self.note_pages(kv, span)?;
        let n_groups = span.n_rows * shape.n_head;
        let [key_len, value_len] = kv.layout.head_dims();
        let end = (span.first_row + span.n_rows) * shape.n_head;
        let numbers = [
            n_groups,
            span.first_row,
            span.start,
            shape.n_head,
            kv.layout.n_head_kv(),
            key_len,
            value_len,
            kv.keys.row_words,
            kv.values.row_words,
            kv.keys.head_words,
            kv.values.head_words,
            kv.layout.page_len(),
            pages_at,
            shape.window.unwrap_or(0),
        ];
        let floats = [shape.scale, shape.softcap.unwrap_or(0.0), shape.alibi.unwrap_or(0.0)];
        let mut words: Vec<u32> = numbers.map(|n| n as u32).to_vec();
        words.extend(floats.map(f32::to_bits));
        words.push(params.sinks.is_some().into());
        let buffers = [
            out.expect(end * value_len),
            queries.expect(end * key_len),
            &kv.keys.buffer,
            &kv.values.buffer,
            params.sinks.unwrap_or(&nothing),
            &notes,
        ];
        let call = Call::new(&kernels::ATTENTION, &buffers, &words, Grid::Groups(n_groups));
        self.run(&Call { decoder: Some(&kv.format.decoder), ..call })
    }

    /// Tells kernels where a sequence's positions are.
    fn note_pages(&mut self, kv: &GpuKvLayer, span: &Span<'_>) -> Result<([usize; 1], GpuBuffer)> {
        let n_pages = (span.start + span.n_rows).div_ceil(kv.layout.page_len());
        let (at, notes) = self.note([Note::Numbers(&span.pages[..n_pages])])?;
        Ok((at.map(|at| at as usize), notes))
    }
}

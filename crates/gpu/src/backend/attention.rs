//! Keys and values, attention, and rotations.

use metallic::backend::{AttentionParams, KvLayout, RopeConfig, RopePairs, Span};
use metallic_kernels::rope::{Rope, RopeParams};

use super::Gpu;
use crate::error::{Error, Result};
use crate::kernels::{self, Call, Grid, Part};
use crate::memory::{GpuBuffer, Vram};
use crate::recorder::{NOTES_WORDS, Note};

/// Values of a head at most: the query and the sums of a head are in memory that a workgroup shares. `MAX_LEN` in
/// `attention.wgsl`.
const MAX_HEAD_LEN: usize = 1024;

/// Keys and values of one layer, in pages: `[page][head][position][word]`, each row of a head whole words.
pub struct GpuKvLayer {
    layout: KvLayout,
    decoder: &'static Part,
    /// Words of a row of a head, of keys and of values.
    row_words: [usize; 2],
    keys: GpuBuffer,
    values: GpuBuffer,
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

    /// What reads it, words of a row of a head, and words of all keys and of all values.
    fn sizes(
        layout: &KvLayout,
        n_pages: usize,
        vram: &Vram,
    ) -> Result<(&'static Part, [usize; 2], [usize; 2])> {
        let kv_type = layout.kv_type();
        let (in_word, decoder) = kernels::kv_decoder_of(kv_type)
            .ok_or_else(|| Error::unsupported(format!("attention over keys and values of type {kv_type}")))?;
        let head_dims = layout.head_dims();
        if let Some(len) = head_dims.into_iter().find(|len| *len > MAX_HEAD_LEN) {
            return Err(Error::unsupported(format!("attention with heads of {len} values")));
        }
        let row_words = head_dims.map(|len| len.div_ceil(in_word));
        // A row that ends within a word would take more than the plan charges for it.
        let rows_in_page = layout.n_head_kv() * layout.page_len();
        for i in 0..2 {
            if 4 * row_words[i] * rows_in_page > layout.page_bytes()[i] {
                let reason = format!("attention with heads of {} values of type {kv_type}", head_dims[i]);
                return Err(Error::unsupported(reason));
            }
        }
        let n_rows = n_pages.saturating_mul(layout.n_head_kv() * layout.page_len());
        let words = row_words.map(|words| words.saturating_mul(n_rows));
        words
            .into_iter()
            .try_for_each(|words| vram.check_words("the keys or the values of a layer", words))?;
        Ok((decoder, row_words, words))
    }

    pub(super) fn new(layout: &KvLayout, n_pages: usize, vram: &Vram) -> Result<Self> {
        let (decoder, row_words, words) = Self::sizes(layout, n_pages, vram)?;
        let [keys, values] = [vram.words("the KV cache", words[0])?, vram.words("the KV cache", words[1])?];
        Ok(Self { layout: *layout, decoder, row_words, keys, values })
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
        let (n_heads, head_dims) = (kv.layout.n_head_kv(), kv.layout.head_dims());
        let ([pages_at], notes) = self.note_pages(kv, span)?;
        for (i, kept) in [&kv.keys, &kv.values].into_iter().enumerate() {
            let (row_words, head_len) = (kv.row_words[i], head_dims[i]);
            let len = span.n_rows * n_heads * row_words;
            rows[i].expect((span.first_row + span.n_rows) * n_heads * head_len);
            let params = [
                len,
                span.first_row,
                span.start,
                n_heads,
                head_len,
                row_words,
                kv.layout.page_len(),
                pages_at,
            ]
            .map(|n| n as u32);
            let buffers = [kept, rows[i], &notes];
            let call = Call::new(&kernels::STORE_KV, &buffers, &params, Grid::Values(len));
            self.run(&Call { decoder: Some(kv.decoder), ..call })?;
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
            kv.row_words[0],
            kv.row_words[1],
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
            &kv.keys,
            &kv.values,
            params.sinks.unwrap_or(&nothing),
            &notes,
        ];
        let call = Call::new(&kernels::ATTENTION, &buffers, &words, Grid::Groups(n_groups));
        self.run(&Call { decoder: Some(kv.decoder), ..call })
    }

    /// Tells kernels where a sequence's positions are.
    fn note_pages(&mut self, kv: &GpuKvLayer, span: &Span<'_>) -> Result<([usize; 1], GpuBuffer)> {
        let n_pages = (span.start + span.n_rows).div_ceil(kv.layout.page_len());
        let (at, notes) = self.note([Note::Numbers(&span.pages[..n_pages])])?;
        Ok((at.map(|at| at as usize), notes))
    }
}

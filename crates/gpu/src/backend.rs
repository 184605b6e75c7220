//! The operations of a forward pass as kernels.
//!
//! An operation that the trait lets not fail keeps its error, and the next that may fail returns it; those between do
//! nothing.

mod attention;
mod best;
mod elementwise;
mod experts;
mod mixers;
mod products;
mod rounding;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use metallic::GgmlType;
use metallic::backend::{
    Activation, AttentionParams, Backend, BackendBytes, ByteSink, ByteSource, CausalConv, Columns, DeltaNet,
    DeviceStats, ExpertNeeds, Experts, Input, KvLayout, Mamba2, MatmulJob, Needs, Norm, RopeConfig, Span,
    SwapNeeds, Temperature, Tokens,
};
use metallic::memory::{MatrixBytes, MatrixData, Places, StreamStats, Tier, WeightStream};

pub use self::attention::{GpuKvLayer, GpuRope};
use self::experts::ExpertWork;
use self::rounding::Rounding;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels::{self, Call, Kernels};
use crate::matrix::{GpuMatrix, MAX_PART_BYTES};
use crate::memory::{GpuBuffer, Vram};
use crate::recorder::{Counters, Note, Recorder};

/// Slots for weights that are swapped in: what is brought to some is used while others are filled.
const N_SLOTS: usize = 4;

/// Bytes of such a slot at most, if a row is not longer: what an upload takes at a time.
const SLOT_BYTES: usize = 4 << 20;

/// Bytes of a slot for parts of matrices.
fn slot_bytes(needs: &SwapNeeds) -> usize {
    needs.matrix_bytes.min(SLOT_BYTES).max(needs.row_bytes)
}

/// Computes on a device, with weights in its memory, or brought there as they are used.
pub struct Gpu {
    vram: Vram,
    kernels: Kernels,
    /// Loading uploads through a shared reference.
    recorder: RefCell<Recorder>,
    /// What brings in weights that main memory has no room for.
    files: Option<WeightStream>,
    /// Inputs that are made on the way into products.
    inputs: GpuBuffer,
    /// What products round, for faster units of the device.
    rounding: Rounding,
    /// Room for a mixture of experts, where the model has one.
    experts: Option<ExpertWork>,
    /// What is bound where an operand is absent.
    nothing: GpuBuffer,
    /// Whether kernels may pass numbers within a subgroup.
    has_subgroups: bool,
    /// Bytes of a buffer of weights at most.
    max_part_bytes: u64,
    shares_main_memory: bool,
    /// The first error that no call has returned.
    failed: Option<Error>,
}

impl Gpu {
    /// A backend on a device, with all that it allocates there charged to `vram`.
    ///
    /// # Errors
    /// No memory for the buffers between host and device.
    pub fn new(device: Device, vram: Tier) -> Result<Self> {
        let vram = Vram { device: Arc::new(device), tier: vram };
        let nothing = vram.words("nothing", 0)?;
        let mut recorder = Recorder::new(&vram)?;
        let counters = Arc::clone(recorder.counters());
        let mut gpu = Self {
            kernels: Kernels::new(&vram, &mut recorder.uploads, &counters)?,
            recorder: RefCell::new(recorder),
            files: None,
            inputs: nothing.clone(),
            rounding: Rounding::of(vram.device.report(), &nothing),
            experts: None,
            nothing,
            has_subgroups: vram.device.report().features.subgroup,
            max_part_bytes: vram.device.max_binding_bytes().min(MAX_PART_BYTES),
            shares_main_memory: !vram.device.report().has_own_memory(),
            failed: None,
            vram,
        };
        gpu.prove_rounding();
        Ok(gpu)
    }

    /// The same with matrices in buffers of no more than `max_bytes`, as on a device that lets kernels see no more: so tests
    /// need no large ones.
    #[must_use]
    pub fn with_parts_of(self, max_bytes: u64) -> Self {
        Self { max_part_bytes: self.max_part_bytes.min(max_bytes), ..self }
    }

    /// The same with memory of its own, as a card has it: so tests need none.
    #[must_use]
    pub fn with_own_memory(self) -> Self {
        Self { shares_main_memory: false, ..self }
    }

    /// The same with products that round nothing, as on a device that has no faster units for what is rounded.
    #[must_use]
    pub fn without_rounding(self) -> Self {
        let rounding = Rounding { matrices: None, to_bytes: false, inputs: self.nothing.clone() };
        Self { rounding, ..self }
    }

    /// The same with products that round to bytes whether the device says that it multiplies bytes fast or not: every device with
    /// subgroups can.
    #[must_use]
    pub fn with_products_of_bytes(mut self) -> Self {
        self.rounding.to_bytes = self.has_subgroups;
        self
    }

    /// Whether products of many rows round inputs, and weights of at most 16 bits, to half precision: for small matrices that the
    /// device multiplies at once.
    pub fn rounds_to_halves(&self) -> bool {
        self.rounding.matrices.is_some()
    }

    /// Whether products of few rows round inputs to bytes where weights are quantized.
    pub fn rounds_inputs_to_bytes(&self) -> bool {
        self.rounding.to_bytes
    }

    /// Bytes that [`Gpu::new`] takes of a device's memory, whatever is computed.
    pub fn least_bytes() -> u64 {
        Recorder::bytes() + Kernels::bytes()
    }

    /// Counts submissions and waits, from now on and wherever this backend goes.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(self.recorder.borrow().counters())
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.vram.device
    }

    pub(crate) fn vram(&self) -> &Vram {
        &self.vram
    }

    /// Bytes of weights that are brought to a slot at a time, unless a row is longer.
    fn chunk_bytes(&self) -> usize {
        self.files.as_ref().map_or(SLOT_BYTES, WeightStream::chunk_bytes).min(SLOT_BYTES)
    }

    fn run(&mut self, call: &Call<'_>) -> Result<()> {
        self.recorder.get_mut().record(&mut self.kernels, call)
    }

    /// Writes what an operation needs of the host, and returns where, with the buffer that has it.
    fn note<const N: usize>(&mut self, notes: [Note<'_>; N]) -> Result<([u32; N], GpuBuffer)> {
        let recorder = self.recorder.get_mut();
        Ok((recorder.note(notes)?, recorder.notes()))
    }

    /// An operation whose error has to wait.
    fn attempt(&mut self, operation: impl FnOnce(&mut Self) -> Result<()>) {
        if self.failed.is_none() {
            self.failed = self.recorder.get_mut().begin().and_then(|()| operation(self)).err();
        }
    }

    /// An operation that returns its error, or one that has waited.
    fn checked(&mut self, operation: impl FnOnce(&mut Self) -> Result<()>) -> metallic::Result<()> {
        let failed = self.failed.take().map_or(Ok(()), Err);
        Ok(failed.and_then(|()| self.recorder.get_mut().begin()).and_then(|()| operation(self))?)
    }
}

impl Backend for Gpu {
    type Buffer = GpuBuffer;
    type Matrix = GpuMatrix;
    type KvLayer = GpuKvLayer;
    type Rope = GpuRope;

    fn description(&self) -> String {
        let report = self.vram.device.report();
        format!("GPU {report}")
    }

    fn arithmetic(&self) -> String {
        self.description()
    }

    fn check(&self, needs: &Needs<'_>, types: &[GgmlType]) -> metallic::Result<()> {
        if let Some(ggml_type) = types.iter().find(|ggml_type| kernels::decoder_of(**ggml_type).is_none()) {
            return Err(Error::UnsupportedType { ggml_type: *ggml_type }.into());
        }
        if needs.n_rows > products::MAX_ROWS {
            return Err(
                Error::unsupported(format!("a batch of more than {} rows", products::MAX_ROWS)).into()
            );
        }
        for (_, layout) in needs.attention {
            GpuKvLayer::check(layout, needs.n_pages, &self.vram)?;
        }
        Ok(())
    }

    fn bytes(&self, needs: &Needs<'_>) -> BackendBytes {
        let words = |n: usize| 4 * n as u64;
        let rotations = needs.ropes.iter().map(|rope| words(rope.n_rot * needs.n_rows));
        BackendBytes {
            inputs: words(needs.n_rows * needs.row_len + self.rounding.words(needs.n_rows, needs.row_len)),
            experts: needs.experts.map_or(0, |experts| {
                let inner = self.rounding.words(needs.n_rows * experts.n_used, experts.n_ff);
                ExpertWork::bytes(needs.n_rows, &experts) + words(inner)
            }),
            rotations: rotations.sum(),
            copies: Self::least_bytes(),
            slots: (N_SLOTS * slot_bytes(&needs.swapped)) as u64,
            ..BackendBytes::default()
        }
    }

    fn memory(&self) -> Option<&Tier> {
        Some(&self.vram.tier)
    }

    fn shares_main_memory(&self) -> bool {
        self.shares_main_memory
    }

    fn check_room(&self, planned_bytes: u64) -> metallic::Result<()> {
        let needed_bytes = planned_bytes.saturating_sub(self.vram.tier.used_bytes());
        Ok(self.vram.device.check_room(needed_bytes)?)
    }

    fn charge_to(&mut self, _: &Tier) {}

    fn reserve_inputs(&mut self, n_rows: usize, row_len: usize) -> metallic::Result<()> {
        self.checked(|gpu| gpu.make_inputs(n_rows, row_len))
    }

    fn reserve_attention(&mut self, _: &[(usize, KvLayout)], _: usize) -> metallic::Result<()> {
        Ok(())
    }

    fn reserve_slots(&mut self, needs: &SwapNeeds, files: Option<WeightStream>) -> metallic::Result<()> {
        self.files = files;
        self.checked(|gpu| gpu.recorder.get_mut().make_slots(N_SLOTS, slot_bytes(needs)))
    }

    fn reserve_experts(&mut self, n_rows: usize, needs: &ExpertNeeds) -> metallic::Result<()> {
        self.checked(|gpu| gpu.make_experts(n_rows, needs))
    }

    fn buffer(&self, what: &'static str, len: usize) -> metallic::Result<GpuBuffer> {
        Ok(self.vram.words(what, len)?)
    }

    fn matrix(&self, data: MatrixData) -> metallic::Result<GpuMatrix> {
        let uploads = &mut self.recorder.borrow_mut().uploads;
        Ok(GpuMatrix::new(&data, &self.vram, uploads, self.max_part_bytes)?)
    }

    fn matrix_swapped(
        &self,
        data: MatrixData,
        n_more: usize,
        more: MatrixBytes,
    ) -> metallic::Result<GpuMatrix> {
        Ok(self.matrix(data)?.with_more(n_more, more, self.chunk_bytes()))
    }

    fn matrix_of_experts(&self, data: MatrixData, places: Places) -> metallic::Result<GpuMatrix> {
        let uploads = &mut self.recorder.borrow_mut().uploads;
        Ok(GpuMatrix::of_experts(data, places, self.chunk_bytes(), &self.vram, uploads)?)
    }

    fn matrix_rows(&self, matrix: &GpuMatrix, rows: Range<usize>) -> GpuMatrix {
        matrix.part(rows)
    }

    fn kv_layer(&self, layout: &KvLayout, n_pages: usize) -> metallic::Result<GpuKvLayer> {
        Ok(GpuKvLayer::new(layout, n_pages, &self.vram)?)
    }

    fn rope(
        &self,
        config: &RopeConfig,
        factors: Option<&[f32]>,
        max_rows: usize,
    ) -> metallic::Result<GpuRope> {
        Ok(GpuRope::new(config, factors, max_rows, &self.vram)?)
    }

    fn write(&mut self, values: &[f32], buffer: &mut GpuBuffer) -> metallic::Result<()> {
        self.checked(|gpu| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            gpu.recorder.get_mut().write(&bytes, buffer.expect(values.len()), 0)
        })
    }

    fn read(&mut self, buffer: &GpuBuffer, first: usize, values: &mut [f32]) -> metallic::Result<()> {
        buffer.expect(first + values.len());
        self.checked(|gpu| gpu.recorder.get_mut().read(buffer, first, values))
    }

    fn read_best(
        &mut self,
        buffer: &GpuBuffer,
        first: usize,
        n_best: usize,
        values: &mut [f32],
    ) -> metallic::Result<()> {
        buffer.expect(first + values.len());
        self.checked(|gpu| gpu.read_largest(buffer, first, n_best, values))
    }

    fn will_use(&mut self, matrix: &GpuMatrix) {
        if let (Some(rows), Some(files)) = (matrix.streamed(), &mut self.files) {
            files.announce(&rows);
        }
    }

    fn forget_uses(&mut self) {
        if let Some(files) = &mut self.files {
            files.forget();
        }
    }

    fn stream_stats(&self) -> Option<StreamStats> {
        self.files.as_ref().map(WeightStream::stats)
    }

    fn device_stats(&self) -> Option<DeviceStats> {
        Some(self.counters().stats())
    }

    fn embed(
        &mut self,
        table: &GpuMatrix,
        ids: &[u32],
        scale: f32,
        out: &mut GpuBuffer,
    ) -> metallic::Result<()> {
        self.checked(|gpu| gpu.look_up(table, ids, scale, out))
    }

    fn matmul(
        &mut self,
        input: &Input<'_, Self>,
        tokens: Tokens,
        jobs: &mut [MatmulJob<'_, Self>],
    ) -> metallic::Result<()> {
        self.checked(|gpu| gpu.multiply(input, tokens, jobs))
    }

    fn experts(
        &mut self,
        experts: &Experts<'_, Self>,
        scores: &mut GpuBuffer,
        x: &GpuBuffer,
        tokens: Tokens,
        out: &mut GpuBuffer,
    ) -> metallic::Result<()> {
        self.checked(|gpu| gpu.mix_experts(experts, scores, x, tokens, out))
    }

    fn norm(&mut self, norm: &Norm<'_, Self>, x: &GpuBuffer, n_rows: usize, out: &mut GpuBuffer) {
        self.attempt(|gpu| gpu.norm_rows(norm, x, n_rows, None, out));
    }

    fn norm_in_place(&mut self, norm: &Norm<'_, Self>, x: &mut GpuBuffer, n_rows: usize, n_parts: usize) {
        self.attempt(|gpu| gpu.norm_parts(norm, x, n_rows, n_parts));
    }

    fn add_norm(
        &mut self,
        norm: &Norm<'_, Self>,
        x: &GpuBuffer,
        n_rows: usize,
        scale: f32,
        acc: &mut GpuBuffer,
    ) {
        self.attempt(|gpu| gpu.norm_rows(norm, x, n_rows, Some(scale), acc));
    }

    fn rope_positions(&mut self, rope: &mut GpuRope, positions: &[u32]) {
        self.attempt(|gpu| gpu.make_angles(rope, positions));
    }

    fn rotate(&mut self, rope: &GpuRope, x: &mut GpuBuffer, n_rows: usize, n_heads: usize, head_len: usize) {
        self.attempt(|gpu| gpu.rotate_heads(rope, x, (n_rows, n_heads, head_len)));
    }

    fn store_kv(&mut self, kv: &mut GpuKvLayer, span: &Span<'_>, keys: &GpuBuffer, values: &GpuBuffer) {
        self.attempt(|gpu| gpu.store(kv, span, [keys, values]));
    }

    fn copy_page(&mut self, kv: &mut GpuKvLayer, from: u32, to: u32) {
        self.attempt(|gpu| gpu.copy_kv_page(kv, from, to));
    }

    fn save_page(&mut self, kv: &GpuKvLayer, page: u32, sink: ByteSink<'_>) -> metallic::Result<()> {
        self.save_kv_page(kv, page, sink)
    }

    fn load_page(&mut self, kv: &mut GpuKvLayer, page: u32, source: ByteSource<'_>) -> metallic::Result<()> {
        self.load_kv_page(kv, page, source)
    }

    fn attention(
        &mut self,
        params: &AttentionParams<'_, Self>,
        kv: &GpuKvLayer,
        span: &Span<'_>,
        queries: &GpuBuffer,
        out: &mut GpuBuffer,
    ) {
        self.attempt(|gpu| gpu.attend(params, kv, span, queries, out));
    }

    fn activate(&mut self, activation: Activation, x: &mut GpuBuffer, len: usize) {
        self.attempt(|gpu| gpu.each_activated(&kernels::ACTIVATE, activation, &[x], len));
    }

    fn clear(&mut self, x: &mut GpuBuffer, len: usize) {
        self.attempt(|gpu| gpu.clear_values(x, len));
    }

    fn add(&mut self, acc: &mut GpuBuffer, x: &GpuBuffer, scale: f32, len: usize) {
        self.attempt(|gpu| gpu.add_scaled(acc, x, scale, len));
    }

    fn gate(&mut self, activation: Activation, gate: &GpuBuffer, x: &mut GpuBuffer, len: usize) {
        self.attempt(|gpu| gpu.each_activated(&kernels::GATE, activation, &[x, gate], len));
    }

    fn clamp(&mut self, x: &mut GpuBuffer, limit: f32, len: usize) {
        self.attempt(|gpu| gpu.clamp_values(x, limit, len));
    }

    fn scale(&mut self, x: &mut GpuBuffer, factor: f32, len: usize) {
        self.attempt(|gpu| gpu.scale_values(x, factor, len));
    }

    fn gate_rows(&mut self, scores: &GpuBuffer, x: &mut GpuBuffer, n_rows: usize, width: usize) {
        self.attempt(|gpu| gpu.gate_each_row(scores, x, n_rows, width));
    }

    fn warm(&mut self, temperature: Temperature, positions: &[u32], x: &mut GpuBuffer, width: usize) {
        self.attempt(|gpu| gpu.warm_rows(temperature, positions, x, width));
    }

    fn divide_rows(&mut self, x: &mut GpuBuffer, n_rows: usize, divisors: &GpuBuffer) {
        self.attempt(|gpu| gpu.divide(x, n_rows, divisors));
    }

    fn softcap(&mut self, x: &mut GpuBuffer, cap: f32, len: usize) {
        self.attempt(|gpu| gpu.softcap_values(x, cap, len));
    }

    fn copy_columns(
        &mut self,
        from: &GpuBuffer,
        from_columns: Columns,
        to: &mut GpuBuffer,
        to_columns: Columns,
        len: usize,
        n_rows: usize,
    ) {
        self.attempt(|gpu| gpu.copy([from, to], [from_columns, to_columns], len, n_rows));
    }

    fn gather_rows(&mut self, x: &GpuBuffer, rows: &[u32], width: usize, out: &mut GpuBuffer) {
        self.attempt(|gpu| gpu.gather(x, rows, width, out));
    }

    fn causal_conv(
        &mut self,
        conv: &CausalConv<'_, Self>,
        history: &mut GpuBuffer,
        span: &Span<'_>,
        x: &GpuBuffer,
        out: &mut GpuBuffer,
    ) {
        self.attempt(|gpu| gpu.convolve(conv, history, span, x, out));
    }

    fn mamba2(
        &mut self,
        mixer: &Mamba2<'_, Self>,
        state: &mut GpuBuffer,
        span: &Span<'_>,
        x_b_c: &GpuBuffer,
        dt: &GpuBuffer,
        _: &mut GpuBuffer,
        out: &mut GpuBuffer,
    ) {
        self.attempt(|gpu| gpu.run_mamba2(mixer, state, span, [x_b_c, dt], out));
    }

    fn delta_net(
        &mut self,
        net: &DeltaNet<'_, Self>,
        state: &mut GpuBuffer,
        span: &Span<'_>,
        q_k_v: &mut GpuBuffer,
        [beta, alpha]: [&GpuBuffer; 2],
        _: &mut GpuBuffer,
        out: &mut GpuBuffer,
    ) {
        self.attempt(|gpu| gpu.run_delta_net(net, state, span, [q_k_v, beta, alpha], out));
    }
}

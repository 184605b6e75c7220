//! A place where parts of a model run. The backend's type ends here: the model sees a row of stages.

use std::ops::Range;

use super::Piece;
use super::boundary::Boundary;
use super::kv_cache::{PageCopy, PageTable};
use super::part::Parts;
use crate::backend::{ByteSink, ByteSource, DeviceStats, Span, Tokens};
use crate::error::Result;
use crate::memory::StreamStats;

/// The rows of one forward pass.
pub(crate) struct Batch<'a> {
    /// Token of each row.
    pub(crate) ids: &'a [u32],
    /// Position of each row in its sequence.
    pub(crate) positions: &'a [u32],
    /// Whose the rows are, and others that go another way.
    pub(crate) pieces: &'a [Piece<'a>],
    /// The pieces of this pass, in the order of their rows: those that are multiplied one by one come before those in tiles.
    pub(crate) order: &'a [usize],
    /// Where what their sequences remember lies.
    pub(crate) pages: &'a PageTable,
    /// Rows whose logits are wanted, in order.
    pub(crate) output_rows: &'a [u32],
    pub(crate) asked: Asked<'a>,
}

/// What whoever wants a pass says of it.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Whether nobody wants it any more. Looked at before each part.
    pub(crate) is_interrupted: &'a dyn Fn() -> bool,
    /// How many of a row's largest logits are wanted; `None` if all are.
    pub(crate) n_best: Option<usize>,
}

impl<'a> Batch<'a> {
    /// The rows of each piece.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span<'a>> {
        let (pieces, pages) = (self.pieces, self.pages);
        self.order.iter().map(|&index| &pieces[index]).scan(0, move |next_row, piece| {
            let (first_row, n_rows) = (*next_row, piece.tokens.len());
            *next_row += n_rows;
            let (pages, slot) = (pages.pages(piece.sequence), pages.slot(piece.sequence));
            let in_tiles = piece.role.takes_gemm((1, 1));
            Some(Span { first_row, n_rows, start: piece.start, pages, slot, in_tiles })
        })
    }

    /// How the rows are multiplied with matrices that see all of them.
    pub(crate) fn tokens(&self) -> Tokens {
        let gemv = self.n_gemv((1, 1));
        Tokens { gemv, gemm: self.ids.len() - gemv }
    }

    /// Rows that are multiplied one by one with matrices that see `n_used` of `n_all`: the first so many.
    pub(crate) fn n_gemv(&self, share: (usize, usize)) -> usize {
        let pieces = self.order.iter().map(|&index| &self.pieces[index]);
        let pieces = pieces.filter(|piece| !piece.role.takes_gemm(share));
        pieces.map(|piece| piece.tokens.len()).sum()
    }
}

/// Takes the logits of one row: its place in `output_rows`, and the values, free to be changed.
pub(crate) type LogitSink<'a> = &'a mut dyn FnMut(usize, &mut [f32]);

/// The parts of a model that one backend computes.
pub(crate) trait Stage: Send {
    /// Begins a pass, of which this stage will compute these parts.
    fn begin(&mut self, parts: &Parts, batch: &Batch<'_>);
    /// Runs consecutive parts, all of this stage, on a batch: from what the last segment has left in `boundary`, or the
    /// tokens, to what the next one takes, or the logits asked for. Ends with [`Error::Interrupted`](crate::Error) before
    /// a part that nobody wants any more.
    fn run(
        &mut self,
        parts: Range<usize>,
        batch: &Batch<'_>,
        boundary: &mut Boundary,
        sink: LogitSink<'_>,
    ) -> Result<()>;
    /// Copies a page of keys and values, in each layer that has them here.
    fn copy_page(&mut self, copy: PageCopy);
    /// Bytes of a page of a layer's keys and values; `None` where the layer has none here.
    fn page_bytes(&self, layer: usize) -> Option<usize>;
    /// Hands over pages of such a layer.
    fn save_pages(&mut self, layer: usize, pages: &[u32], sink: ByteSink<'_>) -> Result<()>;
    /// Fills pages of such a layer with what was handed over.
    fn load_pages(&mut self, layer: usize, pages: &[u32], source: ByteSource<'_>) -> Result<()>;
    /// Gives up a pass that failed or was interrupted, here or in another stage.
    fn give_up(&mut self);
    /// What streaming weights has cost so far; `None` where all are in memory.
    fn stream_stats(&self) -> Option<StreamStats>;
    /// How often a device was given work so far.
    fn device_stats(&self) -> Option<DeviceStats>;
    /// One line for logs: what computes, with what.
    fn description(&self) -> String;
    /// A name for the way in which results are rounded.
    fn arithmetic(&self) -> String;
}

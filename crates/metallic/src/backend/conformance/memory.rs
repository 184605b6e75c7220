//! Buffers, accounts of memory, and what a backend says of itself.

use metallic_gguf::GgmlType;

use super::computation::{Computation, buffer, random, values};
use super::products::NOTHING;
use super::suite::{Bound, Suite};
use super::weights::Weights;
use crate::backend::{
    Backend, BackendBytes, ExpertNeeds, KvLayout, KvType, Needs, RopeConfig, RopePairs, SwapNeeds,
};
use crate::error::Result;
use crate::memory::Tier;

/// Lengths of buffers: the last is more than is copied at a time.
const LENGTHS: [usize; 6] = [1, 3, 33, 257, 16 << 10, 300_001];

/// What is written to the start of a buffer, and read from its midst.
struct Copies {
    len: usize,
    written: usize,
    first: usize,
}

impl Computation for Copies {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { len, written, first } = *self;
        let mut x = b.buffer("a case", len)?;
        b.write(&random(1, written), &mut x)?;
        let mut found = vec![f32::NAN; len - first];
        b.read(&x, first, &mut found)?;
        Ok(found)
    }
}

/// The best of some values, with negative infinity for all others.
struct Best {
    len: usize,
    n_best: usize,
    first: usize,
}

impl Computation for Best {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { len, n_best, first } = *self;
        b.reserve_inputs(32, 1 << 10)?;
        // Steps, so that many are the same.
        let steps: Vec<f32> = random(3, len).iter().map(|x| (500.0 * x).round()).collect();
        let x = buffer(b, &steps)?;
        let mut found = vec![f32::NAN; len - first];
        b.read_best(&x, first, n_best, &mut found)?;
        // The others may be there.
        let mut order: Vec<usize> = (0..found.len()).collect();
        order.sort_by(|i, j| found[*j].total_cmp(&found[*i]));
        order.into_iter().skip(n_best).for_each(|i| found[i] = f32::NEG_INFINITY);
        Ok(found)
    }
}

pub(super) fn check<B: Backend>(suite: &mut Suite<'_, B>) {
    for (len, n_best) in [(33, 1), (1025, 1), (4000, 40), (32_000, 128), (151_936, 40), (2000, 1999)] {
        let what = format!("{n_best} of {} values", len - 7);
        suite.compare("read_best", what, Bound::Bits, &Best { len, n_best, first: 7 });
    }
    for len in LENGTHS {
        for (operation, written, first) in
            [("buffer", 0, 0), ("write", len.div_ceil(2), 0), ("read", len, len / 3)]
        {
            let what = format!("{written} of {len} values, from number {first} on");
            suite.compare(operation, what, Bound::Bits, &Copies { len, written, first });
        }
    }
    for (operation, text) in
        [("description", suite.backend.description()), ("arithmetic", suite.backend.arithmetic())]
    {
        let is_line = !text.is_empty() && !text.contains('\n');
        let result = if is_line { Ok(()) } else { Err(format!("{text:?} is no line")) };
        suite.hold(operation, "a line", |_, _| Ok(result.clone()));
    }
    suite.hold("memory", "what is allocated is charged, and comes back", charges);
    suite.hold("device_stats", "counts of work", counts);
    for small in [true, false] {
        let what = if small { "32 rows of 96 and less" } else { "33 rows of 16384 and less" };
        suite.hold("bytes", what, |backend, account| promises(backend, account, small));
    }
    agree(suite);
}

fn charges<B: Backend>(backend: &mut B, account: &Tier) -> Result<std::result::Result<(), String>> {
    settle(backend)?;
    let before = account.used_bytes();
    let words = backend.buffer("a case", 1000)?;
    let of_buffer = account.used_bytes() - before;
    let matrix = backend.matrix(Weights::random(GgmlType::F32, 64, 10).data())?;
    let with_matrix = account.used_bytes() - before - of_buffer;
    let some = backend.matrix_rows(&matrix, 2..5);
    let of_rows = account.used_bytes() - before - of_buffer - with_matrix;
    drop((words, matrix, some));
    settle(backend)?;
    let left = account.used_bytes().abs_diff(before);
    let of_matrix = if backend.memory().is_some() { 4 * 64 * 10 } else { 0 };
    let found = [of_buffer, with_matrix, of_rows, left];
    let expected = [4000, of_matrix, 0, 0];
    Ok(if found == expected { Ok(()) } else { Err(format!("charged {found:?} instead of {expected:?}")) })
}

/// Has all done that was asked: till then, what it needs may be kept.
fn settle<B: Backend>(backend: &mut B) -> Result<()> {
    let mut x = buffer(backend, &[1.0; 8])?;
    backend.scale(&mut x, 2.0, 8);
    values(backend, &x, 8).map(drop)
}

fn counts<B: Backend>(backend: &mut B, _: &Tier) -> Result<std::result::Result<(), String>> {
    let Some(before) = backend.device_stats() else { return Ok(Ok(())) };
    settle(backend)?;
    let Some(after) = backend.device_stats() else { return Ok(Err("none any more".to_owned())) };
    let work = after.since(before);
    let counted = work.n_dispatches >= 1 && work.n_submissions >= 1 && work.swapped_bytes == 0;
    Ok(if counted { Ok(()) } else { Err(format!("{work:?} for one operation")) })
}

/// What [`Backend::bytes`] says against what is charged where room is made.
fn promises<B: Backend>(
    backend: &mut B,
    account: &Tier,
    small: bool,
) -> Result<std::result::Result<(), String>> {
    let (n_rows, row_len, n_positions) = if small { (32, 96, 100) } else { (33, 16 << 10, 4000) };
    let layout = KvLayout::new(KvType::F32, 128, 2, 64, 32).expect("a small page");
    let attention = [(6, layout)];
    let rope = RopeConfig {
        pairs: RopePairs::Halves,
        n_rot: 64,
        freq_base: 10_000.0,
        freq_scale: 1.0,
        attn_factor: 1.0,
        yarn: None,
    };
    let experts = ExpertNeeds { n_expert: 8, n_used: 2, n_embd: row_len, n_ff: 40 };
    let swapped = SwapNeeds { row_bytes: 4 * row_len, matrix_bytes: 4 * row_len * 3 };
    let ropes = [&rope];
    let needs = Needs {
        n_rows,
        row_len,
        attention: &attention,
        n_positions,
        n_pages: 1,
        ropes: &ropes,
        experts: Some(experts),
        swapped,
    };
    // What was reserved before is given back when room is made anew: at first for next to nothing.
    let nothing = ExpertNeeds { n_expert: 1, n_used: 1, n_embd: 1, n_ff: 1 };
    let least = Needs { row_len: 32, attention: &[], experts: Some(nothing), ..NOTHING };
    let [before, after] = [&least, &needs].map(|needs| backend.bytes(needs));
    backend.reserve_inputs(least.n_rows, least.row_len)?;
    backend.reserve_attention(least.attention, least.n_positions)?;
    backend.reserve_experts(least.n_rows, &nothing)?;
    backend.reserve_slots(&least.swapped, None)?;
    settle(backend)?;
    let mut used = account.used_bytes();
    let mut charged = || {
        let now = account.used_bytes();
        now.wrapping_sub(std::mem::replace(&mut used, now))
    };
    backend.reserve_inputs(n_rows, row_len)?;
    let inputs = charged();
    backend.reserve_attention(&attention, n_positions)?;
    let of_attention = charged();
    backend.reserve_experts(n_rows, &experts)?;
    let of_experts = charged();
    backend.reserve_slots(&swapped, None)?;
    let slots = charged();
    let _rope = backend.rope(&rope, None, n_rows)?;
    let rotations = charged();
    let of =
        |bytes: &BackendBytes| [bytes.inputs, bytes.attention, bytes.experts, bytes.slots, bytes.rotations];
    let found = [inputs, of_attention, of_experts, slots, rotations];
    let mut expected = of(&after);
    expected.iter_mut().zip(of(&before)).for_each(|(after, before)| *after -= before);
    let names = "inputs, attention, experts, slots and rotations";
    Ok(if found == expected {
        Ok(())
    } else {
        Err(format!("{names} take {found:?} instead of {expected:?}"))
    })
}

/// What is refused before anything is loaded is refused then, and nothing else.
fn agree<B: Backend>(suite: &mut Suite<'_, B>) {
    suite.hold("check", "a model of no layers", |backend, _| {
        backend.check(&NOTHING, &[])?;
        Ok(Ok(()))
    });
    for &ggml_type in GgmlType::ALL {
        suite.hold("check", ggml_type, |backend, _| {
            let said = backend.check(&NOTHING, &[GgmlType::F32, ggml_type]).is_ok();
            let done = backend.matrix(Weights::random(ggml_type, 256, 1).data()).is_ok();
            let differ = || format!("`check` says {said}, `matrix` {done}");
            Ok(if said == done { Ok(()) } else { Err(differ()) })
        });
    }
}

//! How fast a plan's weights can be swapped in, with nothing else to do: what a disk gives depends on the length of reads,
//! on how many are under way and on the memory that they go to, so it is measured with the plan's own.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::memory::{GgufFile, StreamedRows, Tier, WeightStream};
use crate::model::Usage;
use crate::plan::{MatrixPlan, MemoryPlan};

/// Bytes a second that the streamed weights of a plan come at: they are read as they will be, in the same order and past
/// the page cache, for about `time`, again and again if they are few. `None` if the plan streams nothing, or no time
/// passed.
///
/// # Errors
/// As [`GgufFile::open`]; no memory, no threads; [`Error::Stream`].
pub fn stream_rate(file: &GgufFile, plan: &MemoryPlan, time: Duration) -> Result<Option<f64>> {
    let streamed = plan.matrices.iter().filter(|matrix| matrix.streamed_bytes() > 0);
    let (Some(slots), true) = (plan.stream, streamed.clone().next().is_some()) else {
        return Ok(None);
    };
    let rows = streamed.map(|matrix| rows_of(file, matrix, slots.chunk_bytes)).collect::<Result<Vec<_>>>()?;
    let mut stream = WeightStream::new(file.open_direct()?, slots, None, &Tier::ram(None))?;
    // What the first reads cost, from touching the slots' memory on, they cost once.
    let (mut n_chunks, mut began, mut before) = (0, Instant::now(), 0);
    while n_chunks <= slots.n_slots || began.elapsed() < time {
        rows.iter().for_each(|rows| stream.announce(rows));
        for range in rows.iter().flat_map(|rows| rows.chunks().map(|chunk| rows.rows(chunk).range)) {
            let slot = stream.next(range)?;
            stream.give_back(slot);
            n_chunks += 1;
            if n_chunks == slots.n_slots {
                (began, before) = (Instant::now(), stream.stats().read_bytes);
            } else if n_chunks > slots.n_slots && began.elapsed() >= time {
                break;
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok((seconds > 0.0).then(|| (stream.stats().read_bytes - before) as f64 / seconds))
}

/// The streamed rows of a matrix, in chunks as they are read: of experts one at a time.
fn rows_of(file: &GgufFile, matrix: &MatrixPlan, chunk_bytes: usize) -> Result<StreamedRows> {
    let gguf = file.gguf();
    let weights = &matrix.weights;
    let tensor = gguf.tensor(&weights.name).ok_or_else(|| Error::missing_tensor(&weights.name))?;
    let range = GgufFile::range(&tensor)?.after((weights.bytes - matrix.streamed_bytes()) as usize);
    let n_rows = matrix.streamed_bytes() / weights.row_bytes();
    let most = match weights.usage {
        Usage::Experts { n_expert, .. } => range.n_bytes / n_expert as usize,
        Usage::Whole | Usage::Logits | Usage::Row => range.n_bytes,
    };
    Ok(StreamedRows::new(range, n_rows as usize, chunk_bytes.min(most)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::GgufLoader;
    use crate::memory::MemoryBudget;
    use crate::testing::{tiny_mixture, tiny_model};

    #[test]
    fn what_a_plan_streams_comes_at_some_rate_or_fails_as_its_file_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        for model in [tiny_model(), tiny_mixture()] {
            std::fs::write(&path, model.unwrap()).unwrap();
            let file = || GgufFile::open(&path).unwrap();
            let within =
                |bytes| GgufLoader::new(file()).slots(2, 1000).budget(MemoryBudget::given(bytes)).plan();
            let Err(Error::BudgetTooSmall { floor_bytes, .. }) = within(0) else { panic!("no floor") };
            let (whole, streams) = (within(u64::MAX).unwrap().1, within(floor_bytes).unwrap().1);
            let rate = |plan| stream_rate(&file(), plan, Duration::from_millis(20));
            assert_eq!(rate(&whole).unwrap(), None);
            assert!(rate(&streams).unwrap().unwrap() > 0.0);
            let opened = file();
            // What names its tensors stays.
            let cut = std::fs::File::options().write(true).open(&path).unwrap();
            cut.set_len(opened.n_bytes() / 2).unwrap();
            assert!(matches!(
                stream_rate(&opened, &streams, Duration::from_secs(60)),
                Err(Error::Stream { .. })
            ));
        }
    }
}

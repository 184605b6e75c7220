//! The stream over every reader: the right bytes in the right order whatever happens, and no slot is ever lost.

use std::collections::VecDeque;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::memory::reader::fake::FakeReader;

/// Not a multiple of a block, and a chunk is longer than one.
const ROW_BYTES: usize = 3000;
const ROWS_PER_CHUNK: usize = 3;
const N_ROWS: usize = 100;

/// Rows of which every byte is the row's number.
struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        let bytes: Vec<u8> = (0..N_ROWS as u8).flat_map(|row| [row; ROW_BYTES]).collect();
        std::fs::write(&path, bytes).unwrap();
        File { _folder: folder, path }
    }

    fn set_len(&self, n_bytes: usize) {
        std::fs::File::options().write(true).open(&self.path).unwrap().set_len(n_bytes as u64).unwrap();
    }

    fn files(&self) -> Arc<ModelFiles> {
        Arc::new(ModelFiles::open(vec![self.path.clone()]).unwrap())
    }

    fn fake(&self, n_slots: usize, change: impl FnOnce(&mut FakeReader)) -> WeightStream {
        let files = self.files();
        let mut reader = FakeReader::new(Arc::clone(&files), n_slots);
        change(&mut reader);
        WeightStream::with_reader(files, Box::new(reader), plan(n_slots), &Tier::ram(None)).unwrap()
    }

    /// A stream over each real reader.
    fn real(&self, n_slots: usize) -> impl Iterator<Item = WeightStream> {
        ReaderKind::available().map(move |kind| {
            let files = ModelFiles::open(vec![self.path.clone()]).unwrap();
            WeightStream::new(files, plan(n_slots), Some(kind), &Tier::ram(None)).unwrap()
        })
    }
}

fn plan(n_slots: usize) -> StreamPlan {
    StreamPlan { n_slots, chunk_bytes: ROWS_PER_CHUNK * ROW_BYTES, max_row_bytes: ROW_BYTES }
}

fn rows(first: usize, n: usize) -> StreamedRows {
    let range = FileRange { shard: 0, offset: (first * ROW_BYTES) as u64, n_bytes: n * ROW_BYTES };
    StreamedRows { range, row_bytes: ROW_BYTES, rows_per_chunk: ROWS_PER_CHUNK }
}

fn first_row(range: FileRange) -> usize {
    range.offset as usize / ROW_BYTES
}

fn holds(slot: &Slot, range: FileRange) -> bool {
    let expected = (range.offset as usize..).take(range.n_bytes).map(|at| (at / ROW_BYTES) as u8);
    slot.chunk().iter().copied().eq(expected)
}

/// Takes all chunks of some rows, and checks what they hold.
fn take(stream: &mut WeightStream, rows: StreamedRows) -> Result<()> {
    for chunk in rows.chunks() {
        let range = rows.rows(chunk).range;
        let slot = stream.next(range)?;
        assert!(holds(&slot, range));
        stream.give_back(slot);
    }
    Ok(())
}

/// All slots are free once nothing is announced.
fn is_whole(stream: &mut WeightStream, n_slots: usize) -> bool {
    stream.forget();
    stream.free.len() == n_slots && stream.n_under_way == 0 && stream.arrived.is_empty()
}

/// What a user of a stream may do next.
#[derive(Clone, Debug)]
enum Step {
    Announce {
        first: usize,
        n: usize,
    },
    /// Takes the chunk that is next in the announced order.
    Next,
    /// Takes some chunk.
    Other {
        first: usize,
    },
    /// Gives one of the chunks back that are in use.
    GiveBack(prop::sample::Index),
    Forget,
    Row(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..N_ROWS - 12, 1usize..12).prop_map(|(first, n)| Step::Announce { first, n }),
        8 => Just(Step::Next),
        1 => (0..N_ROWS - ROWS_PER_CHUNK).prop_map(|first| Step::Other { first }),
        8 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
        1 => Just(Step::Forget),
        1 => (0..N_ROWS).prop_map(Step::Row),
    ]
}

/// Goes some steps beside a model of the stream, the queue of what is announced, and checks after each that they agree:
/// a chunk comes if and only if it can be read, every slot is in one place, and none is idle while there is work.
fn walk(stream: &mut WeightStream, n_slots: usize, steps: &[Step], can_be_read: &dyn Fn(FileRange) -> bool) {
    let mut queue: VecDeque<FileRange> = VecDeque::new();
    let mut in_use: Vec<(Slot, FileRange)> = Vec::new();
    for step in steps {
        let mut wanted = None;
        match step {
            Step::Announce { first, n } => {
                let rows = rows(*first, *n);
                stream.announce(&rows);
                queue.extend(rows.chunks().map(|chunk| rows.rows(chunk).range));
            }
            Step::Next => wanted = queue.front().copied(),
            Step::Other { first } => wanted = Some(rows(*first, ROWS_PER_CHUNK).range),
            Step::GiveBack(_) if in_use.is_empty() => {}
            Step::GiveBack(which) => stream.give_back(in_use.swap_remove(which.index(in_use.len())).0),
            Step::Forget => {
                stream.forget();
                queue.clear();
            }
            Step::Row(row) => {
                let range = rows(*row, 1).range;
                let found = stream.row(range).map(|row| row.to_vec());
                assert!(found.map_or(!can_be_read(range), |found| found == [*row as u8; ROW_BYTES]));
            }
        }
        if let Some(range) = wanted.filter(|_| in_use.len() < n_slots) {
            if queue.front() != Some(&range) {
                queue.clear();
            } else {
                queue.pop_front();
            }
            match stream.next(range) {
                Ok(slot) => {
                    assert!(can_be_read(range) && holds(&slot, range), "{range:?}");
                    in_use.push((slot, range));
                }
                Err(Error::Stream { offset, n_bytes, .. }) => {
                    assert!(!can_be_read(range) && (offset, n_bytes) == (range.offset, range.n_bytes));
                    queue.clear();
                }
                Err(other) => panic!("{other}"),
            }
        }
        let WeightStream { free, arrived, announced, ahead, n_under_way, .. } = &*stream;
        assert_eq!(free.len() + n_under_way + arrived.len() + in_use.len(), n_slots, "a slot is lost");
        assert_eq!(ahead.len(), n_under_way + arrived.len(), "what is read is wanted");
        assert!(ahead.iter().map(|(_, range)| range).chain(announced).eq(&queue), "the order of use");
        assert!(free.is_empty() || announced.is_empty(), "a slot is idle");
        assert!(in_use.iter().all(|(slot, range)| holds(slot, *range)), "a chunk in use is written to");
    }
    in_use.into_iter().for_each(|(slot, _)| stream.give_back(slot));
    assert!(is_whole(stream, n_slots));
}

proptest! {
    #[test]
    fn any_use_of_any_reader_gets_what_is_asked_for(
        n_slots in 1usize..5,
        steps in prop::collection::vec(step(), 1..60),
        n_file_bytes in prop_oneof![Just(N_ROWS * ROW_BYTES), 0..N_ROWS * ROW_BYTES],
    ) {
        let file = File::new();
        // Cut short while it is in use.
        let streams: Vec<WeightStream> = file.real(n_slots).collect();
        file.set_len(n_file_bytes);
        for mut stream in streams {
            walk(&mut stream, n_slots, &steps, &|range| range.offset + range.n_bytes as u64 <= n_file_bytes as u64);
        }
    }

    #[test]
    fn reads_may_end_in_any_order_in_pieces_or_not_at_all(
        n_slots in 1usize..5,
        steps in prop::collection::vec(step(), 1..60),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
        bad_rows in prop::collection::hash_set(0..N_ROWS, 0..20),
        max_bytes in prop_oneof![Just(usize::MAX), 4096usize..20_000],
    ) {
        let file = File::new();
        let is_bad = move |range: FileRange| bad_rows.contains(&first_row(range));
        let (mut order, fails) = (order.into_iter().cycle(), is_bad.clone());
        let mut stream = file.fake(n_slots, |reader| {
            reader.next = Box::new(move |n| order.next().expect("it has no end").index(n));
            reader.fails = Box::new(move |read| fails(read.range));
            reader.max_bytes = max_bytes;
        });
        walk(&mut stream, n_slots, &steps, &|range| !is_bad(range));
    }
}

#[test]
fn a_failed_read_is_an_error_with_its_place_and_what_follows_works() {
    let file = File::new();
    for n_slots in [1, 3] {
        for newest_first in [false, true] {
            for failing in 0..7 {
                let mut stream = file.fake(n_slots, |reader| {
                    reader.next = Box::new(move |n| if newest_first { n - 1 } else { 0 });
                    reader.fails = Box::new(move |read| read.number == failing);
                });
                stream.announce(&rows(30, 20));
                match take(&mut stream, rows(30, 20)) {
                    Err(Error::Stream { path, offset, n_bytes, source }) => {
                        assert_eq!(path, file.path);
                        assert_eq!(offset, (30 + 3 * failing) * ROW_BYTES as u64);
                        assert_eq!(n_bytes, if failing == 6 { 2 } else { 3 } * ROW_BYTES);
                        assert_eq!(source.to_string(), "the disk is on fire");
                    }
                    other => panic!("{other:?}"),
                }
                assert!(is_whole(&mut stream, n_slots));
                stream.announce(&rows(10, 9));
                take(&mut stream, rows(10, 9)).unwrap();
                assert!(is_whole(&mut stream, n_slots));
            }
        }
    }
}

#[test]
fn each_announced_byte_is_read_once() {
    let file = File::new();
    let matrices = [rows(0, 20), rows(50, 7), rows(20, 1), rows(0, 20)];
    for n_slots in [1, 2, 5, 40] {
        for mut stream in file.real(n_slots).chain([file.fake(n_slots, |_| ())]) {
            matrices.iter().for_each(|rows| stream.announce(rows));
            matrices.iter().for_each(|rows| take(&mut stream, *rows).unwrap());
            assert_eq!(stream.stats().read_bytes, 48 * ROW_BYTES as u64);
            assert!(is_whole(&mut stream, n_slots));
        }
    }
}

#[test]
fn waiting_is_counted() {
    let (file, delay) = (File::new(), Duration::from_millis(5));
    let mut stream = file.fake(2, |reader| reader.delay = delay);
    stream.announce(&rows(0, 4 * ROWS_PER_CHUNK));
    take(&mut stream, rows(0, 4 * ROWS_PER_CHUNK)).unwrap();
    assert!(stream.stats().waited >= 4 * delay);
}

#[test]
fn a_file_that_is_whole_again_can_be_read_again() {
    let file = File::new();
    for mut stream in file.real(4) {
        file.set_len(50_000);
        stream.announce(&rows(0, N_ROWS));
        let error = take(&mut stream, rows(0, N_ROWS)).unwrap_err();
        assert!(matches!(&error, Error::Stream { offset: 45_000, .. }), "{error}");
        assert!(stream.row(rows(20, 1).range).is_err());
        assert!(is_whole(&mut stream, 4));
        file.set_len(N_ROWS * ROW_BYTES);
        take(&mut stream, rows(0, 15)).unwrap();
    }
}

//! Weights that fail to come, or change: no answer ends well.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::slice;
use std::sync::Arc;

use metallic::engine::{Engine, Event, RequestId};
use metallic::text::Tokenizer;
use metallic::{Error, FileChange, GgufFile, GgufLoader, LoadMode, MemoryBudget, testing};

use crate::{request, run};

/// A file of the tiny mixture, of which the least budget leaves most to be swapped in.
pub(crate) struct Streamed {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    pub(crate) engine: Engine,
}

impl Streamed {
    pub(crate) fn new() -> Self {
        Self::within(0)
    }

    /// Within so much, or the least that it can be.
    fn within(ram: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mixture.gguf");
        std::fs::write(&path, testing::tiny_mixture().unwrap()).unwrap();
        let loader = |ram: u64| {
            let loader =
                GgufLoader::new(GgufFile::open(&path).unwrap()).threads(1).context_length(128).batch(16);
            loader.slots(2, 4096).budget(MemoryBudget::given(ram))
        };
        let Err(Error::BudgetTooSmall { floor_bytes, .. }) = loader(0).plan() else { panic!("no floor") };
        let model = loader(floor_bytes.max(ram)).load().unwrap();
        let tokenizer = Tokenizer::from_gguf(&GgufFile::open(&path).unwrap().gguf()).unwrap();
        Self { engine: Engine::new(model, tokenizer), _folder: folder, path }
    }
}

/// The errors of requests that fail in what is left to do.
fn failures(engine: &mut Engine) -> Vec<(RequestId, Arc<Error>)> {
    let mut failures = Vec::new();
    while engine.step(&mut |event| match event {
        Event::Failed { request, error } => failures.push((request, error)),
        Event::Finished { .. } => panic!("{event:?}"),
        _ => {}
    }) {}
    failures
}

#[track_caller]
fn assert_changed(error: &Error, path: &Path, expected: FileChange) {
    match error {
        Error::FileChanged { path: found, change } => assert_eq!((&**found, *change), (path, expected)),
        other => panic!("{other}"),
    }
}

#[test]
fn a_disk_that_fails_in_an_answer_ends_it() {
    let Streamed { mut engine, path, _folder } = Streamed::new();
    let request = request(&engine, "abc", 20);
    let bytes = std::fs::read(&path).unwrap();
    let id = engine.submit(request.clone()).unwrap();
    for _ in 0..3 {
        assert!(engine.step(&mut |event| assert!(!matches!(event, Event::Failed { .. }))));
    }
    let half = bytes.len() as u64 / 2;
    File::options().write(true).open(&path).unwrap().set_len(half).unwrap();
    let failures_in_answer = failures(&mut engine);
    let [(failed, error)] = &failures_in_answer[..] else { panic!("{failures_in_answer:?}") };
    assert_eq!(*failed, id);
    match &**error {
        Error::Stream { path: found, offset, n_bytes, .. } => {
            assert_eq!(found, &path);
            assert!(offset + *n_bytes as u64 > half, "what is left can be read");
        }
        other => panic!("{other}"),
    }
    // Also if the same bytes are there again: nobody has looked at them.
    std::fs::write(&path, bytes).unwrap();
    engine.submit(request).unwrap();
    assert_changed(&failures(&mut engine)[0].1, &path, FileChange::Written);
}

/// A library's user is told as the command's is, whatever has become of the text.
#[test]
fn an_answer_from_a_file_that_was_overwritten_meanwhile_fails() {
    let overwrite = |path: &Path| {
        let n_bytes = std::fs::metadata(path).unwrap().len() as usize;
        // In place, and of the same length.
        let mut file = File::options().write(true).open(path).unwrap();
        file.seek(SeekFrom::Start(n_bytes as u64 / 2)).unwrap();
        file.write_all(&vec![0; n_bytes - n_bytes / 2]).unwrap();
    };
    let [streamed, mapped] = [Streamed::new(), Streamed::within(u64::MAX)];
    assert!(
        streamed.engine.model().stream_stats().is_some() && mapped.engine.model().stream_stats().is_none()
    );
    for Streamed { mut engine, path, _folder } in [streamed, mapped] {
        let request = request(&engine, "abc", 20);
        let id = engine.submit(request.clone()).unwrap();
        for _ in 0..3 {
            assert!(engine.step(&mut |event| assert!(!matches!(event, Event::Failed { .. }))));
        }
        overwrite(&path);
        let [(failed, error)] = &failures(&mut engine)[..] else { panic!("one failure") };
        assert_eq!(*failed, id);
        assert_changed(error, &path, FileChange::Written);
        engine.submit(request).unwrap();
        assert_changed(&failures(&mut engine)[0].1, &path, FileChange::Written);
    }
    // A stopped answer is one, too.
    let Streamed { mut engine, path, _folder } = Streamed::new();
    let request = request(&engine, "abc", 20);
    let id = engine.submit(request).unwrap();
    assert!(engine.step(&mut |_| ()));
    overwrite(&path);
    let mut events = Vec::new();
    engine.cancel(id, &mut |event| events.push(event));
    let [Event::Failed { error, .. }] = &events[..] else { panic!("{events:?}") };
    assert_changed(error, &path, FileChange::Written);
}

#[test]
fn a_mapped_file_that_has_changed_is_found_before_an_answer_begins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, testing::tiny_model().unwrap()).unwrap();
    let engine_of = |mode| {
        let file = GgufFile::open(&path).unwrap();
        let tokenizer = Tokenizer::from_gguf(&file.gguf()).unwrap();
        let model = GgufLoader::new(file).threads(1).context_length(128).mode(mode).load().unwrap();
        Engine::new(model, tokenizer)
    };
    let (mut mapped, mut copied) = (engine_of(LoadMode::Map), engine_of(LoadMode::Slab));
    let request = request(&mapped, "abc", 20);
    let expected = run(&mut mapped, slice::from_ref(&request))[0].0.clone();
    let file = std::fs::File::options().append(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() + 1).unwrap();

    let mut events = Vec::new();
    mapped.generate(request.clone(), |event| events.push(event)).unwrap();
    let [Event::Failed { error, .. }] = &events[..] else { panic!("{events:?}") };
    assert_changed(error, &path, FileChange::Written);
    // Who has a copy need not care.
    assert_eq!(run(&mut copied, slice::from_ref(&request))[0].0, expected);
}

//! What was computed of one request serves another.

use super::*;

/// A text that is longer than two pages of the cache, whose prompts differ at the end.
fn prompts(engine: &Engine, ends: &[&str]) -> Vec<Request> {
    let beginning = "What all have in common. ".repeat(23);
    let request = |end: &&str| Request { exact: true, ..request(engine, &format!("{beginning}{end}"), 12) };
    ends.iter().map(request).collect()
}

fn expected(requests: &[Request]) -> Vec<String> {
    requests.iter().map(|request| run(&mut engine(1024, 1), slice::from_ref(request)).remove(0).0).collect()
}

#[test]
fn what_several_requests_begin_with_is_read_once() {
    let mut engine = engine(1024, 4);
    let requests = prompts(&engine, &["One", "Two", "Three, which is longer", "Four"]);
    let n_common = requests[0].prompt.iter().zip(&requests[1].prompt).take_while(|(a, b)| a == b).count();
    assert!(n_common > 512);
    let found = run(&mut engine, &requests);
    let n_read: Vec<_> = found.iter().map(|(_, _, stats)| stats.n_read).collect();
    for ((_, _, stats), request) in found.iter().zip(&requests).skip(1) {
        assert!(stats.n_cached >= n_common, "{n_read:?}");
        assert_eq!(stats.n_read + stats.n_cached, request.prompt.len());
    }
    assert_eq!(found[0].2.n_cached, 0);
    let texts: Vec<_> = found.into_iter().map(|(text, ..)| text).collect();
    assert_eq!(texts, expected(&requests), "each has the text that it has alone");
}

#[test]
fn one_who_follows_goes_on_when_the_other_is_cancelled() {
    let mut engine = engine(1024, 2);
    let requests = prompts(&engine, &["One", "Two"]);
    let ids = [0, 1].map(|i: usize| engine.submit(requests[i].clone()).unwrap());
    let mut heard = Heard::default();
    (0..4).for_each(|_| assert!(engine.step(&mut |event| heard.take(event))));
    assert_eq!(engine.stats(ids[1]).map(|stats| (stats.n_read, stats.n_cached)), Some((0, 0)), "it waits");
    engine.cancel(ids[0], &mut |event| heard.take(event));
    while engine.step(&mut |event| heard.take(event)) {}
    let (text, _, stats) = heard.of(ids[1]);
    assert_eq!((text, stats.n_cached), (expected(&requests[1..]).remove(0), 4 * 16), "batches are of 16");
}

#[test]
fn conversations_stay_cached_until_their_pages_are_needed() {
    // Six pages, of which each conversation takes three.
    let mut engine = engine(1536, 1);
    let ends = ["One", "Two"].map(|end| end.repeat(20));
    let requests = prompts(&engine, &[&ends[0], &ends[1]]);
    let other = Request { prompt: vec![9; 700], ..requests[0].clone() };
    let cached = |engine: &mut Engine, request: &Request| {
        let (text, _, stats) = run(engine, slice::from_ref(request)).remove(0);
        (text, stats.n_cached)
    };
    let (first, n) = cached(&mut engine, &requests[0]);
    assert_eq!(n, 0);
    cached(&mut engine, &other);
    let n_prompt = requests[0].prompt.len();
    assert_eq!(
        cached(&mut engine, &requests[0]),
        (first.clone(), n_prompt - 1),
        "another has used its place"
    );
    // Of what is shared a copy is written to, and the other stays what it was.
    assert!(cached(&mut engine, &requests[1]).1 > 512);
    assert_eq!(cached(&mut engine, &requests[0]), (first.clone(), n_prompt - 1));
    cached(&mut engine, &Request { prompt: vec![8; 1500], ..other });
    assert_eq!(cached(&mut engine, &requests[0]), (first, 0), "its pages were needed");
}

#[test]
fn groups_share_nothing() {
    let mut engine = engine(1024, 2);
    let mut requests = prompts(&engine, &["One", "Two"]);
    requests[1].group = 1;
    let found = run(&mut engine, &requests);
    assert_eq!(found.iter().map(|(_, _, stats)| stats.n_cached).collect::<Vec<_>>(), [0, 0]);
    let again = run(&mut engine, &requests);
    assert!(again.iter().all(|(_, _, stats)| stats.n_cached > 512), "each its own");
    requests[0].group = 2;
    assert_eq!(run(&mut engine, &requests[..1])[0].2.n_cached, 0);
}

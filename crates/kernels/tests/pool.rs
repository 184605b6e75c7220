//! The thread pool: every item once, panics and misuse reported, nothing lost under stress.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use metallic_kernels::ThreadPool;

mod common;
use common::Random;

fn counters(n: usize) -> Vec<AtomicUsize> {
    (0..n).map(|_| AtomicUsize::new(0)).collect()
}

fn assert_each_is(counters: &[AtomicUsize], expected: usize) {
    for (i, count) in counters.iter().enumerate() {
        assert_eq!(count.load(Ordering::Relaxed), expected, "item {i}");
    }
}

#[test]
fn every_worker_runs_once_a_job() {
    for n_threads in 1..=4 {
        let pool = ThreadPool::new(n_threads).unwrap();
        assert_eq!(pool.n_threads(), n_threads);
        let calls = counters(n_threads);
        for _ in 0..2000 {
            pool.run(&|worker| {
                calls[worker].fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_each_is(&calls, 2000);
    }
}

#[test]
fn worker_zero_is_the_caller() {
    let pool = ThreadPool::new(3).unwrap();
    let caller = thread::current().id();
    pool.run(&|worker| assert_eq!(worker == 0, thread::current().id() == caller));
}

#[test]
fn split_gives_each_item_to_one_worker_in_whole_grains() {
    let pool = ThreadPool::new(3).unwrap();
    for n in [0, 1, 2, 3, 7, 16, 33, 100] {
        for grain in [1, 4, 16] {
            let items = counters(n);
            let ranges = AtomicUsize::new(0);
            pool.split(n, grain, &|range| {
                assert!(!range.is_empty() && range.start % grain == 0, "{range:?}");
                ranges.fetch_add(1, Ordering::Relaxed);
                items[range].iter().for_each(|item| {
                    item.fetch_add(1, Ordering::Relaxed);
                });
            });
            assert_each_is(&items, 1);
            assert!(ranges.into_inner() <= 3, "one range a worker");
        }
    }
}

#[test]
fn each_hands_out_every_item_once() {
    let pool = ThreadPool::new(3).unwrap();
    for n in [0, 1, 2, 1000] {
        let items = counters(n);
        pool.each(n, &|i| {
            items[i].fetch_add(1, Ordering::Relaxed);
        });
        assert_each_is(&items, 1);
    }
}

#[test]
fn chunks_and_rows_are_disjoint_and_complete() {
    for n_threads in [1, 2, 3] {
        let pool = ThreadPool::new(n_threads).unwrap();
        let mut data = vec![0usize; 103];
        pool.each_chunk(&mut data, 10, &|i, chunk| chunk.iter_mut().for_each(|x| *x += i + 1));
        assert!(data.iter().enumerate().all(|(i, &x)| x == i / 10 + 1));

        let mut data = vec![0usize; 7 * 5];
        pool.split_rows(&mut data, 5, &|first, rows| {
            for (row, r) in rows.chunks_exact_mut(5).zip(first..) {
                row.iter_mut().for_each(|x| *x += r + 1);
            }
        });
        assert!(data.iter().enumerate().all(|(i, &x)| x == i / 5 + 1));
        pool.split_rows(&mut data[..0], 5, &|_, _| panic!("there are no rows"));
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
    let pool = ThreadPool::new(3).unwrap();
    for culprit in 0..3 {
        let finished = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(&|worker| {
                if worker == culprit {
                    panic!("worker {worker} fails");
                }
                thread::sleep(Duration::from_millis(1));
                finished.fetch_add(1, Ordering::Relaxed);
            });
        }));
        let message = *result.unwrap_err().downcast::<String>().unwrap();
        assert_eq!(message, format!("worker {culprit} fails"));
        assert_eq!(finished.into_inner(), 2, "the others were waited for");
    }
    pool.run(&|_| ());
}

#[test]
fn nested_use_panics_instead_of_hanging() {
    for n_threads in [1, 2, 3] {
        let pool = ThreadPool::new(n_threads).unwrap();
        let nested = AtomicUsize::new(0);
        pool.run(&|_| {
            let inner: [&dyn Fn(); 3] =
                [&|| pool.run(&|_| ()), &|| pool.each(1, &|_| ()), &|| pool.split(9, 1, &|_| ())];
            for inner in inner {
                assert!(catch_unwind(AssertUnwindSafe(inner)).is_err(), "a nested job must not run");
                nested.fetch_add(1, Ordering::Relaxed);
            }
        });
        assert_eq!(nested.into_inner(), 3 * n_threads);
        pool.run(&|_| ());
    }
}

#[test]
fn zero_threads_is_an_error() {
    assert!(ThreadPool::new(0).is_err());
}

#[test]
fn threads_that_share_a_pool_take_turns() {
    let pool = ThreadPool::new(2).unwrap();
    let total = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let inside = AtomicUsize::new(0);
                    pool.run(&|_| {
                        inside.fetch_add(1, Ordering::Relaxed);
                    });
                    total.fetch_add(inside.into_inner(), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(total.into_inner(), 3 * 500 * 2);
}

/// Jobs that read what the previous job wrote, with pauses that make workers and caller spin in some
/// rounds and park in others, and arrive in every order: a lost wake-up hangs, a missing barrier
/// breaks the sums.
#[test]
fn stress() {
    let mut random = Random(1);
    for n_threads in [2, 3, 5] {
        let pool = ThreadPool::new(n_threads).unwrap();
        let mut values = vec![1u64; 64];
        for round in 0..400 {
            let pauses: Vec<u64> = (0..n_threads).map(|_| random.bits() % 8).collect();
            if random.below(8) == 0 {
                thread::sleep(Duration::from_micros(random.bits() % 200));
            }
            let before = values.clone();
            let slow = round % 4 == 0;
            pool.run(&|worker| {
                if slow {
                    thread::sleep(Duration::from_micros(pauses[worker] * 20));
                }
            });
            pool.each_chunk(&mut values, 8, &|i, chunk| {
                for (k, x) in chunk.iter_mut().enumerate() {
                    *x = before[(i * 8 + k + 1) % 64].wrapping_mul(3).wrapping_add(1);
                }
            });
            let expected: Vec<u64> =
                (0..64).map(|i| before[(i + 1) % 64].wrapping_mul(3).wrapping_add(1)).collect();
            assert_eq!(values, expected);
        }
    }
}

#[test]
fn drop_joins_every_thread() {
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    struct CountsItsEnd;
    impl Drop for CountsItsEnd {
        fn drop(&mut self) {
            ENDED.fetch_add(1, Ordering::Relaxed);
        }
    }
    thread_local!(static SENTINEL: CountsItsEnd = const { CountsItsEnd });
    let pool = ThreadPool::new(4).unwrap();
    pool.run(&|worker| {
        if worker != 0 {
            SENTINEL.with(|_| ());
        }
    });
    drop(pool);
    assert_eq!(ENDED.load(Ordering::Relaxed), 3);
}

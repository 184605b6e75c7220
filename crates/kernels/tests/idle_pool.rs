//! A pool that waits costs no processor time. Alone in its program, which it measures as a whole.
#![cfg(target_os = "linux")]

use std::thread;
use std::time::Duration;

use metallic_kernels::ThreadPool;

#[test]
fn idle_threads_park() {
    // User and system time of this process, in ticks of 10 ms (proc(5), fields 14 and 15 of `stat`).
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let after_name = stat.rsplit(") ").next().unwrap();
        after_name.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum::<u64>()
    };
    let pool = ThreadPool::new(3).unwrap();
    for _ in 0..2 {
        pool.run(&|_| ());
        let before = ticks();
        thread::sleep(Duration::from_millis(500));
        // Two spinning threads would have used up to a hundred.
        assert!(ticks() - before <= 5);
    }
}

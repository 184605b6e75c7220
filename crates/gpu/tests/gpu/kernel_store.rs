//! Compiled kernels that are kept, as far as the driver gives them out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use metallic::backend::Backend;
use metallic::memory::Tier;
use metallic_gpu::{Device, Gpu, KernelStore};

use crate::device;

/// A store in memory.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Files>>);

/// What is kept, and how often it was.
#[derive(Default)]
struct Files {
    by_name: HashMap<String, Vec<u8>>,
    n_saves: usize,
}

impl KernelStore for Kept {
    fn load(&self, name: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().by_name.get(name).cloned()
    }

    fn save(&self, name: &str, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap();
        kept.by_name.insert(name.to_owned(), bytes.to_owned());
        kept.n_saves += 1;
    }
}

impl Kept {
    fn n_saves(&self) -> usize {
        self.0.lock().unwrap().n_saves
    }

    /// The only thing that is kept.
    fn only(&self) -> (String, Vec<u8>) {
        let kept = self.0.lock().unwrap();
        assert_eq!(kept.by_name.len(), 1);
        kept.by_name.iter().next().map(|(name, bytes)| (name.clone(), bytes.clone())).unwrap()
    }
}

/// Scales a number on a device that keeps its kernels there.
fn scaled_by_a_new_device(kept: &Kept) -> Option<f32> {
    let mut device: Device = device()?;
    device.keep_kernels(Box::new(kept.clone()));
    let mut gpu = Gpu::new(device, Tier::named("vram", None)).unwrap();
    let n_before = gpu.counters().stats().n_compiled;
    let mut x = gpu.buffer("x", 1).unwrap();
    gpu.write(&[3.0], &mut x).unwrap();
    gpu.scale(&mut x, 2.0, 1);
    let mut found = [0.0];
    gpu.read(&x, 0, &mut found).unwrap();
    assert_eq!(gpu.counters().stats().n_compiled - n_before, 1);
    Some(found[0])
}

#[test]
fn kernels_are_kept_and_taken_again_and_what_is_no_kernel_is_replaced() {
    let kept = Kept::default();
    match scaled_by_a_new_device(&kept) {
        Some(found) => assert_eq!(found, 6.0),
        None => return,
    }
    if kept.n_saves() == 0 {
        return println!("skipped: this driver gives out no kernels");
    }
    let (name, first) = kept.only();
    assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name} is no file's name");
    // Nothing was added, so nothing is kept anew.
    assert_eq!(scaled_by_a_new_device(&kept), Some(6.0));
    assert_eq!((kept.n_saves(), kept.only().1.len()), (1, first.len()));
    let mut damaged = first.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for (i, wrong) in
        [Vec::new(), b"garbage".to_vec(), vec![0xff; 1 << 20], first[..first.len() / 2].to_vec(), damaged]
            .into_iter()
            .enumerate()
    {
        kept.save(&name, &wrong);
        let before = kept.n_saves();
        assert_eq!(scaled_by_a_new_device(&kept), Some(6.0), "{i}");
        assert_eq!((kept.n_saves() - before, kept.only().1.len()), (1, first.len()), "{i}");
    }
}

/// A device that compiles nothing, unless it is to prove how it multiplies, has nothing to keep.
#[test]
fn what_was_kept_stays_where_nothing_was_compiled() {
    let kept = Kept::default();
    let Some(mut device) = device() else { return };
    device.keep_kernels(Box::new(kept.clone()));
    let gpu = Gpu::new(device, Tier::named("vram", None)).unwrap();
    let compiles = gpu.counters().stats().n_compiled > 0;
    drop(gpu);
    assert_eq!(kept.n_saves(), usize::from(compiles));
}

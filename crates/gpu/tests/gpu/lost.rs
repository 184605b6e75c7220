//! A device that is lost: an error that says so, and a process that can open it again.

use std::error::Error as _;

use metallic::backend::Backend;
use metallic_gpu::{Error, Gpu};

use crate::gpu;

fn scaled(gpu: &mut Gpu, factor: f32) -> metallic::Result<f32> {
    let mut x = gpu.buffer("x", 1)?;
    gpu.write(&[3.0], &mut x)?;
    gpu.scale(&mut x, factor, 1);
    let mut found = [0.0];
    gpu.read(&x, 0, &mut found)?;
    Ok(found[0])
}

fn is_lost(error: &metallic::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<Error>());
    source.is_some_and(Error::is_device_lost)
}

#[test]
fn a_lost_device_says_so_again_and_again_and_a_new_one_computes() {
    let Some(mut gpu) = gpu() else { return };
    assert_eq!(scaled(&mut gpu, 2.0).unwrap(), 6.0);
    let mut x = gpu.buffer("x", 1).unwrap();
    gpu.device().lose();
    // With a buffer from before, and with new ones.
    gpu.scale(&mut x, 2.0, 1);
    let error = gpu.read(&x, 0, &mut [0.0]).unwrap_err();
    assert!(is_lost(&error), "{error:?}");
    for _ in 0..2 {
        let error = scaled(&mut gpu, 2.0).unwrap_err();
        assert!(is_lost(&error), "{error:?}");
    }
    drop((x, gpu));
    let mut gpu = crate::gpu().expect("a device, as before");
    assert_eq!(scaled(&mut gpu, 5.0).unwrap(), 15.0);
}

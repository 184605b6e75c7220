//! What a device reports by itself: without somebody to tell, wgpu panics.

use std::sync::{Arc, Mutex, PoisonError};

use wgpu::DeviceLostReason;

use crate::error::{Error, Result};

/// The first fault of a device that no call has returned yet.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Option<Fault>>);

enum Fault {
    Lost(String),
    OutOfMemory,
    Command(String),
}

impl Faults {
    /// Hears of whatever happens to `device`.
    pub(crate) fn watch(self: &Arc<Self>, device: &wgpu::Device) {
        let faults = Arc::clone(self);
        device.on_uncaptured_error(Arc::new(move |error| {
            faults.note(match error {
                wgpu::Error::OutOfMemory { .. } => Fault::OutOfMemory,
                error => Fault::Command(error.to_string()),
            });
        }));
        let faults = Arc::clone(self);
        device.set_device_lost_callback(move |reason, message| {
            // Also called when the device is dropped.
            if reason != DeviceLostReason::Destroyed {
                faults.note(Fault::Lost(message));
            }
        });
    }

    /// Says that the device is lost.
    pub(crate) fn lose(&self, reason: &str) {
        self.note(Fault::Lost(reason.to_owned()));
    }

    fn note(&self, fault: Fault) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A lost device makes all that follows fail: the loss is what explains it.
        if first.is_none() || matches!(fault, Fault::Lost(_)) {
            *first = Some(fault);
        }
    }

    /// Returns what has happened since the last call.
    ///
    /// # Errors
    /// The fault. That the device is lost is returned again and again.
    pub(crate) fn check(&self) -> Result<()> {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match first.take() {
            None => Ok(()),
            Some(Fault::OutOfMemory) => Err(Error::OutOfMemory { what: "commands", bytes: 0 }),
            Some(Fault::Command(reason)) => Err(Error::Command { reason }),
            Some(Fault::Lost(reason)) => {
                *first = Some(Fault::Lost(reason.clone()));
                Err(Error::Lost { reason })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_is_returned_once_but_a_loss_stays() {
        let faults = Faults::default();
        faults.note(Fault::Command("first".to_owned()));
        faults.note(Fault::OutOfMemory);
        assert!(matches!(faults.check(), Err(Error::Command { reason }) if reason == "first"));
        faults.check().unwrap();
        faults.note(Fault::OutOfMemory);
        faults.note(Fault::Lost("gone".to_owned()));
        assert!((0..2).all(|_| matches!(faults.check(), Err(Error::Lost { .. }))));
    }
}

//! Who has taken how much: every large allocation holds a lease, and leases never exceed the budget.
//!
//! A [`Tier`] is an account of one kind of memory. Main memory is one, that of a device another, with a limit of its
//! own.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// A kind of memory, and how much of it may be taken. Clones share the account.
#[derive(Clone, Debug)]
pub struct Tier(Arc<Account>);

#[derive(Debug)]
struct Account {
    name: &'static str,
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

/// Bytes of a tier that somebody holds. Dropping it gives them back.
#[derive(Debug)]
pub struct Lease {
    tier: Tier,
    bytes: u64,
}

/// Memory with the lease that it was allocated under; used as the slice it holds, so that it can't grow.
#[derive(Debug)]
pub struct Leased<T> {
    memory: T,
    _lease: Lease,
}

impl Tier {
    /// Main memory, of which `limit_bytes` may be taken; `None` for as many as the system gives.
    pub fn ram(limit_bytes: Option<u64>) -> Self {
        Self::named("memory", limit_bytes)
    }

    /// Memory of a device, under the name that errors call it by.
    pub fn named(name: &'static str, limit_bytes: Option<u64>) -> Self {
        let limit_bytes = limit_bytes.unwrap_or(u64::MAX);
        Self(Arc::new(Account { name, limit_bytes, used_bytes: AtomicU64::new(0) }))
    }

    /// Bytes that may be taken.
    pub fn limit_bytes(&self) -> u64 {
        self.0.limit_bytes
    }

    /// Bytes that are taken at this moment.
    pub fn used_bytes(&self) -> u64 {
        self.0.used_bytes.load(Ordering::Relaxed)
    }

    /// Takes some bytes, before the system is asked for them.
    ///
    /// # Errors
    /// [`Error::OverBudget`] if fewer are left.
    pub fn lease(&self, what: &'static str, bytes: u64) -> Result<Lease> {
        let Account { name, limit_bytes, ref used_bytes } = *self.0;
        let take = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit_bytes);
        match used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(Lease { tier: self.clone(), bytes }),
            Err(used) => Err(Error::OverBudget { what, bytes, tier: name, left_bytes: limit_bytes - used }),
        }
    }

    /// A vector of as many zeros.
    ///
    /// # Errors
    /// As [`lease`](Self::lease), or [`Error::OutOfMemory`] if the system refuses.
    pub fn zeros<T: Clone + Default>(&self, what: &'static str, len: usize) -> Result<Leased<Vec<T>>> {
        let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
        let lease = self.lease(what, bytes)?;
        let mut memory = Vec::new();
        memory.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { what, bytes })?;
        memory.resize(len, T::default());
        Ok(lease.of(memory))
    }
}

impl Lease {
    /// The memory that it was taken for.
    pub fn of<T>(self, memory: T) -> Leased<T> {
        Leased { memory, _lease: self }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.tier.0.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl<T> Leased<T> {
    /// The same lease for what the memory has become.
    ///
    /// # Errors
    /// What `make` returns; the bytes are given back then.
    pub fn try_map<U, E>(self, make: impl FnOnce(T) -> Result<U, E>) -> Result<Leased<U>, E> {
        Ok(Leased { memory: make(self.memory)?, _lease: self._lease })
    }
}

impl<T: Deref> Deref for Leased<T> {
    type Target = T::Target;

    fn deref(&self) -> &T::Target {
        &self.memory
    }
}

impl<T: DerefMut> DerefMut for Leased<T> {
    fn deref_mut(&mut self) -> &mut T::Target {
        &mut self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_never_exceed_the_limit_and_come_back() {
        let ram = Tier::ram(Some(100));
        let a = ram.lease("a", 60).unwrap();
        match ram.lease("b", 41) {
            Err(Error::OverBudget { what: "b", bytes: 41, left_bytes: 40, .. }) => {}
            other => panic!("{other:?}"),
        }
        let b = ram.lease("b", 40).unwrap();
        assert_eq!((a.bytes, ram.used_bytes()), (60, 100));
        drop(a);
        assert_eq!(ram.used_bytes(), 40);
        let c = b.of(vec![1_u8; 40]).try_map(|bytes| Ok::<_, ()>(bytes.into_boxed_slice())).unwrap();
        assert_eq!((c.len(), ram.used_bytes()), (40, 40));
        assert_eq!(c.try_map(|_| Err::<(), _>(7)).unwrap_err(), 7);
        assert_eq!(ram.used_bytes(), 0);
    }

    #[test]
    fn what_nobody_has_is_refused_before_the_system_is_asked() {
        let ram = Tier::ram(Some(1 << 20));
        let error = ram.zeros::<f32>("too many", usize::MAX / 8).unwrap_err();
        assert!(matches!(error, Error::OverBudget { .. }), "{error}");
        assert_eq!(ram.zeros::<f32>("some", 9).unwrap()[..], [0.0; 9]);
        assert_eq!(ram.used_bytes(), 0);
        let error = Tier::ram(None).zeros::<u8>("too many", usize::MAX / 2).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    }

    #[test]
    fn threads_that_lease_at_the_same_time_get_no_more_than_there_is() {
        let ram = Tier::ram(Some(10));
        let leases: Vec<Lease> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..8).filter_map(|_| ram.lease("1", 1).ok()).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!((leases.len(), ram.used_bytes()), (10, 10));
    }
}

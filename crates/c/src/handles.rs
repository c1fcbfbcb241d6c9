//! Numbers that stand for objects. A number is never given out twice, so that one that was closed stays closed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openelm_ffi::{Generation, Model, Session};

use crate::status::Failure;

/// A model. Zero is none.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelHandle {
    /// Its number.
    pub id: u64,
}

/// A session. Zero is none.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionHandle {
    /// Its number.
    pub id: u64,
}

/// A text in the making. Zero is none.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerationHandle {
    /// Its number.
    pub id: u64,
}

pub(crate) struct Table<T> {
    what: &'static str,
    entries: Mutex<Entries<T>>,
}

struct Entries<T> {
    last: u64,
    open: BTreeMap<u64, Arc<T>>,
}

impl<T> Table<T> {
    const fn new(what: &'static str) -> Self {
        Self { what, entries: Mutex::new(Entries { last: 0, open: BTreeMap::new() }) }
    }

    fn entries(&self) -> MutexGuard<'_, Entries<T>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, object: Arc<T>) -> u64 {
        let mut entries = self.entries();
        entries.last += 1;
        let id = entries.last;
        entries.open.insert(id, object);
        id
    }

    pub(crate) fn get(&self, id: u64) -> Result<Arc<T>, Failure> {
        self.entries().open.get(&id).cloned().ok_or(Failure::Closed(self.what))
    }

    /// Closes a handle; what is at work on its object goes on.
    pub(crate) fn remove(&self, id: u64) -> Result<Arc<T>, Failure> {
        self.entries().open.remove(&id).ok_or(Failure::Closed(self.what))
    }
}

pub(crate) static MODELS: Table<Model> = Table::new("model");
pub(crate) static SESSIONS: Table<Session> = Table::new("session");
pub(crate) static GENERATIONS: Table<Generation> = Table::new("generation");

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hash tables whose secret is made once a process, with the first cache.
//!
//! The standard library's is made once a thread, when that makes its first table: a getrandom(2) at any time, on a VMM's vCPU
//! as well, which its seccomp filter would have to allow.

use std::collections::hash_map::{DefaultHasher, RandomState};
use std::hash::BuildHasher;

use once_cell::sync::OnceCell;

pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, Secret>;
pub(crate) type HashSet<T> = std::collections::HashSet<T, Secret>;

static SECRET: OnceCell<RandomState> = OnceCell::new();

fn secret() -> &'static RandomState {
    SECRET.get_or_init(RandomState::new)
}

/// See the [module](self).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Secret;

impl BuildHasher for Secret {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        secret().build_hasher()
    }
}

/// Makes the secret, if there is none yet.
pub(crate) fn prepare() {
    secret();
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hash tables whose secret is made once a process, with the first cache.
//!
//! The standard library's is made once a thread, when that makes its first table: a getrandom(2) at any time, on a VMM's vCPU
//! as well, which its seccomp filter would have to allow. And its hash takes a tenth of what a message without a route does in
//! user space; what a guest chooses is kept in tables of bounded size, so a secret of 64 bits is enough.

use std::hash::{BuildHasher, RandomState};

use foldhash::fast::{FixedState, FoldHasher};
use once_cell::sync::OnceCell;

pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, Secret>;
pub(crate) type HashSet<T> = std::collections::HashSet<T, Secret>;

static SECRET: OnceCell<FixedState> = OnceCell::new();

fn secret() -> &'static FixedState {
    SECRET.get_or_init(|| FixedState::with_seed(RandomState::new().hash_one(0)))
}

/// See the [module](self).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Secret;

impl BuildHasher for Secret {
    type Hasher = FoldHasher<'static>;

    fn build_hasher(&self) -> Self::Hasher {
        secret().build_hasher()
    }
}

/// Makes the secret, if there is none yet.
pub(crate) fn prepare() {
    secret();
}

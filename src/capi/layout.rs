// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the fields of the header's structs lie, on a machine of 64 bits. c-tests/layout.c says the same in C: a program that
//! was compiled before must find them there. Structs may grow at their end.

#![cfg(target_pointer_width = "64")]

use std::mem::{offset_of, size_of};

use super::types::*;

macro_rules! layout {
    ($($name:ident: $size:literal { $($field:ident $offset:literal,)* })*) => { $(
        const _: () = {
            assert!(size_of::<$name>() == $size);
            $(assert!(offset_of!($name, $field) == $offset);)*
        };
    )* };
}

layout! {
    msi_route_cache_ops: 56 {
        size 0, flags 4, signal 8, set_routes 16, bind_irqfd 24, unbind_irqfd 32, raise_gsi 40,
        gsi_of 48,
    }
    msi_route_cache_config: 40 {
        size 0, flags 4, vm_fd 8, kvm_fd 12, first_gsi 16, max_routes 20, ops 24, opaque 32,
    }
    msi_route_cache_stats: 104 {
        size 0, flags 4, table_writes 8, table_write_errors 16, routes 24, routes_pinned 32,
        evictions 40, irqfd_binds 48, irqfd_unbinds 56, relayed_vectors 64,
        relayed_messages 72, promotions 80, demotions 88, unserved_vectors 96,
    }
    msi_device_config: 72 {
        size 0, flags 4, kind 8, vectors 12, requester 16, first_pin 20, cap_offset 24,
        cap_next 28, table_bar 32, table_offset 36, pba_bar 40, pba_offset 44, name 48,
        changed 56, opaque 64,
    }
    msi_vector_info: 32 {
        size 0, flags 4, address 8, data 16, eventfds 20, gsi 24, error 28,
    }
}

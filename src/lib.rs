// SPDX-License-Identifier: MIT OR Apache-2.0
//! Message-signalled interrupts for KVM virtual machine monitors.
//!
//! A VMM speaks of devices, vectors and messages. How a message gets to the guest (the ioctl that
//! takes it whole, or a GSI routed to it and an irqfd on that GSI) is decided here, and the kernel's
//! table of routes is used as a cache.
//!
//! This crate is the engine of `libmsiroute.so`; its C surface is in `capi`, behind the feature of
//! that name. The house, from the door down; each room knows only those below it:
//!
//! | module | what it is |
//! |---|---|
//! | `capi` | the C surface |
//! | [`device`] | a function's vectors: the guest's accesses, control, delivery, eventfds, transactions |
//! | `dump` | all that a cache knows, as JSON |
//! | [`cache`] | what one VM's devices share |
//! | `routes` | the kernel's table as a cache: changes staged, written, only then believed |
//! | `vector` | one vector: message, mask, pending |
//! | `relay` | eventfds served from user space, and promotion into the kernel |
//! | [`remap`] | the VMM's vIOMMU: what becomes of a message |
//! | `registers` | what the guest sees of MSI-X and MSI, as bytes |
//! | `snapshot` | a device's state as bytes |
//! | [`backend`] | where messages go: KVM, a table of C functions, a model of KVM |
//! | `eventfd` | what can be told of an eventfd, and taken from it |
//! | `helpers` | short-lived threads |
//! | `hash` | hash tables with one secret a process |
//! | `memory` | memory whose lack is an error |
//! | `cancel` | threads that are cancelled |
//! | `trace` | static tracepoints |
//! | `sync` | the asymmetric reader/writer lock that deliveries read under |
//! | [`message`], [`error`], [`stats`] | plain values |

mod arm;
pub mod backend;
pub mod cache;
mod cancel;
#[cfg(feature = "capi")]
pub mod capi;
mod changed;
pub mod device;
mod dump;
pub mod error;
mod eventfd;
pub mod explicit;
mod hash;
mod helpers;
mod irqfd;
mod json;
mod memory;
pub mod message;
mod owner;
mod registers;
mod relay;
pub mod remap;
mod routes;
mod snapshot;
pub mod stats;
mod sync;
mod trace;
mod transaction;
mod vector;

pub use cache::{Config, RouteCache};
pub use device::{Delivery, Device, DeviceConfig, Kind, Masking, VectorInfo};
pub use error::{Error, Result};

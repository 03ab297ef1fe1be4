// SPDX-License-Identifier: MIT OR Apache-2.0
//! All that a cache knows, as JSON for people and their tools: docs/dump.schema.json is what it looks like.
//!
//! Each device is looked at under its own lock, the table under its own, the relay under its: each is as it was at a moment,
//! not all of them at the same one. Nothing is formatted or written under a lock.

use std::sync::Arc;

use kvm_bindings::{
    kvm_irq_routing_entry, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_MSI_VALID_DEVID,
};

use crate::backend::Features;
use crate::cache::RouteCache;
use crate::device::{Kind, State, VectorInfo};
use crate::error::Result;
use crate::json::{Json, Scalar, Sink};
use crate::memory::list_of;
use crate::message::{Message, NO_REQUESTER};
use crate::relay::RelayState;
use crate::routes::RouteState;
use crate::stats::Stats;
use crate::transaction;

/// Changes with whatever a reader could stumble over.
const FORMAT: u32 = 1;

/// What a member of a cache says of itself.
pub(crate) enum Described<'a> {
    Device(DeviceState<'a>),
    Explicit(Vec<ExplicitState>),
}

pub(crate) struct DeviceState<'a> {
    /// What tracepoints call it.
    pub id: usize,
    pub name: &'a str,
    pub kind: Kind,
    pub requester: u32,
    pub state: State,
    /// Unplugged, and still held by somebody.
    pub closed: bool,
    pub vectors: Vec<VectorState>,
}

pub(crate) struct VectorState {
    pub info: VectorInfo,
    pub pending: bool,
    /// Eventfds that are irqfds now.
    pub bound: usize,
}

/// A GSI that the VMM numbers itself.
pub(crate) struct ExplicitState {
    pub gsi: u32,
    /// A change of it waits for a commit.
    pub staged: bool,
    pub eventfds: usize,
    pub bound: usize,
}

impl RouteCache {
    /// Tells all that there is to tell, in pieces, with no lock held.
    ///
    /// Errors: `ENOMEM`; what the sink says.
    pub fn dump(self: &Arc<Self>, sink: Sink<'_>) -> Result<()> {
        let in_transaction = transaction::is_open(self);
        let time_ns = monotonic_ns();
        let (stats, relay, table) = (self.stats(), self.relay_state(), self.routes.describe()?);
        let members = self.members();
        let mut devices = list_of(members.len())?;
        let mut explicit = Vec::new();
        for member in &members {
            match member.describe()? {
                Described::Device(device) => devices.push(device),
                Described::Explicit(gsis) => explicit = gsis,
            }
        }
        devices.sort_unstable_by_key(|device| (device.name, device.id));
        let users = users(&devices)?;
        Json::document(sink, |json| {
            json.field("format", FORMAT);
            json.field("library", env!("CARGO_PKG_VERSION"));
            json.field("time_ns", time_ns);
            json.object("features", |json| put_features(json, &self.features()));
            json.object("state", |json| {
                json.field("pauses", self.pause_count());
                json.field("in_transaction", in_transaction);
                json.field("table_written", table.is_written);
                json.field("remapping", self.remap().is_on());
                json.field("x2apic_ids", self.addressing().x2apic_ids);
                json.field("ext_dest_id", self.addressing().ext_dest_id);
            });
            match &relay {
                Some(relay) => json.object("relay", |json| put_relay(json, relay)),
                None => json.field("relay", Scalar::Null),
            }
            json.object("stats", |json| put_stats(json, &stats));
            json.list("devices", &devices, put_device);
            json.list("routes", &table.routes, |json, route| put_route(json, route, &users));
            json.list("fixed", &table.fixed, put_entry);
            json.list("explicit", &explicit, |json, it| put_explicit(json, it, &table.explicit));
        })
    }
}

/// On which GSI which vector stands, in this order.
fn users(devices: &[DeviceState<'_>]) -> Result<Vec<(u32, usize, u32)>> {
    let all = || {
        devices.iter().flat_map(|device| {
            let vectors = (0u32..).zip(&device.vectors);
            vectors.filter_map(|(index, it)| Some((it.info.gsi?, device.id, index)))
        })
    };
    let mut users = list_of(all().count())?;
    users.extend(all());
    users.sort_unstable();
    Ok(users)
}

fn put_features(json: &mut Json<'_>, features: &Features) {
    json.field("direct", features.direct);
    json.field("routes", features.routes);
    json.field("irqfd", features.irqfd);
    json.field("resample", features.resample);
    json.field("requester", features.requester);
    json.field("gsi_direct", features.gsi_direct);
    json.field("max_routes", features.max_routes);
}

fn put_relay(json: &mut Json<'_>, relay: &RelayState) {
    json.field("on", relay.on);
    json.field("threads", relay.threads);
    json.field("candidates", relay.candidates);
    json.field("waiting", relay.waiting);
    json.field("promoted", relay.promoted);
    json.field("sampled", relay.sampled);
}

fn put_stats(json: &mut Json<'_>, stats: &Stats) {
    json.field("table_writes", stats.table_writes);
    json.field("table_write_errors", stats.table_write_errors);
    json.field("routes", stats.routes);
    json.field("routes_pinned", stats.routes_pinned);
    json.field("evictions", stats.evictions);
    json.field("irqfd_binds", stats.irqfd_binds);
    json.field("irqfd_unbinds", stats.irqfd_unbinds);
    json.field("relayed_vectors", stats.relayed_vectors);
    json.field("relayed_messages", stats.relayed_messages);
    json.field("promotions", stats.promotions);
    json.field("demotions", stats.demotions);
    json.field("unserved_vectors", stats.unserved_vectors);
}

fn put_device(json: &mut Json<'_>, device: &DeviceState<'_>) {
    json.field("id", Scalar::Hex(device.id as u64));
    json.field("name", device.name);
    let kind = match device.kind {
        Kind::Plain => "plain",
        Kind::Msix => "msix",
        Kind::Msi(_) => "msi",
        Kind::Pins { .. } => "pins",
    };
    json.field("kind", kind);
    json.field("requester", known(device.requester));
    json.field("enabled", device.state.enabled);
    json.field("function_masked", device.state.function_masked);
    json.field("bus_master", device.state.bus_master);
    json.field("closed", device.closed);
    json.list("vectors", (0u32..).zip(&device.vectors), |json, (index, vector)| {
        let VectorState { info, pending, bound } = vector;
        json.field("index", index);
        json.field("set", info.set);
        json.field("address", Scalar::Hex(info.address));
        json.field("data", info.data);
        json.field("masked", info.masked);
        json.field("pending", *pending);
        json.field("live", info.live);
        json.field("blocked", info.blocked);
        json.field("unserved", info.unserved);
        json.field("relayed", info.relayed);
        json.field("in_kernel", info.in_kernel);
        json.field("eventfds", info.eventfds);
        json.field("bound", *bound);
        json.field("gsi", info.gsi);
        json.field("errno", info.errno);
    });
}

fn put_route(json: &mut Json<'_>, route: &RouteState, users: &[(u32, usize, u32)]) {
    json.field("gsi", route.gsi);
    put_message(json, &route.message);
    json.field("pins", route.pins);
    json.field("live", route.live);
    json.field("is_pin", route.is_pin);
    let first = users.partition_point(|(gsi, ..)| *gsi < route.gsi);
    let own = users.iter().skip(first).take_while(|(gsi, ..)| *gsi == route.gsi);
    json.list("users", own, |json, (_, device, index)| {
        json.field("device", Scalar::Hex(*device as u64));
        json.field("vector", *index);
    });
}

fn put_message(json: &mut Json<'_>, message: &Message) {
    json.field("address", Scalar::Hex(message.address));
    json.field("data", message.data);
    json.field("requester", known(message.requester));
}

fn put_explicit(json: &mut Json<'_>, it: &ExplicitState, entries: &[kvm_irq_routing_entry]) {
    json.field("gsi", it.gsi);
    json.field("staged", it.staged);
    json.field("eventfds", it.eventfds);
    json.field("bound", it.bound);
    json.list("entries", entries.iter().filter(|entry| entry.gsi == it.gsi), put_entry);
}

fn put_entry(json: &mut Json<'_>, entry: &kvm_irq_routing_entry) {
    json.field("gsi", entry.gsi);
    // SAFETY: the union's largest member, which covers all of it; whoever made the entry wrote all of it.
    let [first, second, third, fourth, ..] = unsafe { entry.u.pad };
    match entry.type_ {
        KVM_IRQ_ROUTING_IRQCHIP => {
            json.field("type", "irqchip");
            json.field("irqchip", first);
            json.field("pin", second);
        }
        KVM_IRQ_ROUTING_MSI => {
            json.field("type", "msi");
            let has_requester = entry.flags & KVM_MSI_VALID_DEVID != 0;
            let requester = if has_requester { fourth } else { NO_REQUESTER };
            let address = u64::from(second) << 32 | u64::from(first);
            put_message(json, &Message { address, data: third, requester });
        }
        other => json.field("type", other),
    }
}

fn known(requester: u32) -> Option<u32> {
    (requester != NO_REQUESTER).then_some(requester)
}

/// Two dumps' difference is the time between them.
fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec. There always is such a clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let part = |n| u64::try_from(n).unwrap_or(0);
    part(now.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(now.tv_nsec))
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What comes from outside as a saved state: refused, and then nothing is changed; or it is the device's state from
//! then on. A byte says which device, one what is done; the others are for that.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a panic is what a fuzzer looks for"
)]

use std::sync::Arc;

use msiroute::device::Raw;
use msiroute::{Config, Device, RouteCache};

use crate::beside::model::OnModel;
use crate::beside::step::words;
use crate::beside::{self, Beside, Machine, Part, Shape};
use crate::reference::{Kind, Message};

/// Of a program that makes the state that is then spoilt.
const STEPS: usize = 24;

pub fn run(data: &[u8]) {
    let [device, what, rest @ ..] = data else { return };
    let bit = |at: u8| device >> at & 1 != 0;
    let (kind, vectors) = match device & 3 {
        0 => (Kind::Plain, 2),
        1 => (Kind::Msix, 3),
        _ => (Kind::Msi { wide: bit(0), maskable: bit(2) }, 1 << (device >> 3 & 7).min(5)),
    };
    let part = Part { kind, vectors, data0_off: bit(7) };
    match what % 4 {
        0 => load(part, rest),
        1 | 2 => load_spoilt(part, rest, what % 4 == 1),
        _ => import(part, *what, rest),
    }
}

struct Paused {
    machine: OnModel,
    cache: Arc<RouteCache>,
    device: Arc<Device>,
}

fn paused(part: Part) -> Paused {
    let machine = OnModel::new();
    let config = Config { paused: true, ..Config::default() };
    let cache = RouteCache::new(machine.host(), &config).unwrap();
    let device = beside::new_device(&cache, &part).0;
    Paused { machine, cache, device }
}

/// Everything that can be seen of a device.
fn look(device: &Device, part: Part) -> impl PartialEq + std::fmt::Debug {
    let infos = (0..part.vectors as u32).map(|v| format!("{:?}", device.info(v).unwrap()));
    let infos: Vec<String> = infos.collect();
    (beside::save(device), beside::export(device, &part), device.state(), infos)
}

/// Whether it was taken.
fn take(device: &Device, part: Part, bytes: &[u8]) -> bool {
    let before = look(device, part);
    match device.load(bytes) {
        Ok(()) => true,
        Err(e) => {
            assert!(e.errno() == libc::EINVAL || e.errno() == libc::ENOTSUP, "{e}");
            assert_eq!(before, look(device, part), "refused, and yet something changed");
            false
        }
    }
}

fn load(part: Part, bytes: &[u8]) {
    let it = paused(part);
    if !take(&it.device, part, bytes) {
        return;
    }
    // There is one way to say each state.
    assert_eq!(beside::save(&it.device), bytes);
    let other = paused(part);
    other.device.load(bytes).unwrap();
    assert_eq!(look(&it.device, part), look(&other.device, part));
    go_on(&it, part);
}

/// What is pending and may be sent is, once; then the device is used.
fn go_on(Paused { machine, cache, device }: &Paused, part: Part) {
    let mut expected: Vec<Message> = Vec::new();
    for v in 0..part.vectors as u32 {
        let info = device.info(v).unwrap();
        if info.live && device.state().bus_master && device.is_pending(v).unwrap() {
            expected.push((info.address, info.data));
        }
    }
    expected.sort_unstable();
    cache.resume().unwrap();
    machine.check_sent(expected);
    for v in 0..part.vectors as u32 {
        device.deliver(v).unwrap();
        device.mask(v).unwrap();
        device.deliver(v).unwrap();
        device.unmask(v).unwrap();
    }
    device.reset().unwrap();
    let new = beside::new_device(cache, &part).0;
    device.set_bus_master(true).unwrap();
    assert_eq!(device.state(), new.state(), "reset");
}

/// What a used device saves, with some bytes changed; into a new device, or into the used one.
fn load_spoilt(part: Part, rest: &[u8], into_new: bool) {
    let Some((&n, rest)) = rest.split_first() else { return };
    let (spoils, program) = rest.split_at((usize::from(n % 8) * 3).min(rest.len()));
    let program = Shape { parts: vec![part], no_direct: false, tame: false }
        .program(words(program).take(STEPS));
    let mut used = Beside::new(OnModel::new(), program.shape);
    program.steps.iter().for_each(|step| used.step(step));
    let device = used.device(0);
    let mut bytes = beside::save(&device);
    for spoil in spoils.chunks_exact(3) {
        let at = usize::from(spoil[0]) | usize::from(spoil[1]) << 8;
        let len = bytes.len();
        bytes[at % len] = spoil[2];
    }
    if into_new {
        return load(part, &bytes);
    }
    if take(&device, part, &bytes) {
        let new = paused(part);
        new.device.load(&bytes).unwrap();
        assert_eq!(registers(&device, part), registers(&new.device, part));
        assert_eq!(device.state(), new.device.state());
    }
    let again = beside::save(&device);
    device.load(&again).unwrap();
}

/// But for what is pending: that may have been sent.
fn registers(device: &Device, part: Part) -> [Vec<u8>; 2] {
    let [mut capability, table, _] = beside::export(device, &part);
    if let Kind::Msi { maskable: true, .. } = part.kind {
        let pending = capability.len() - 4;
        capability.truncate(pending);
    }
    [capability, table]
}

/// Raw registers: of the right length, mostly, and beginning as they must, mostly.
fn import(part: Part, what: u8, rest: &[u8]) {
    let it = paused(part);
    let device = &it.device;
    let own = beside::export(device, &part);
    let mut rest = rest.iter().copied();
    let mut raw = own.clone();
    for (at, bytes) in raw.iter_mut().enumerate() {
        let keep = if at == 0 && what & 4 == 0 { 2 } else { 0 };
        bytes.iter_mut().skip(keep).zip(&mut rest).for_each(|(to, from)| *to = from);
        if what >> (at + 3) & 1 != 0 {
            bytes.clear();
        }
    }
    if let (true, Some(byte)) = (what & 0xC0 == 0xC0, rest.next()) {
        raw[usize::from(byte) % 3].push(byte);
    }
    let before = look(device, part);
    let [capability, table, pba] = &raw;
    match device.import(Raw { capability, table, pba }) {
        Err(e) => {
            assert_eq!(e.errno(), libc::EINVAL, "{e}");
            assert_eq!(before, look(device, part), "refused, and yet something changed");
        }
        Ok(()) => {
            let after = beside::export(device, &part);
            let expected = |at: usize| if raw[at].is_empty() { &own[at] } else { &raw[at] };
            assert_eq!(&after[1], expected(1), "table");
            // It may have been given in whole bytes only.
            assert!(after[2].starts_with(expected(2)), "PBA: {:?}, {:?}", after[2], expected(2));
            let again = paused(part);
            again.device.load(&beside::save(device)).unwrap();
            assert_eq!(look(device, part), look(&again.device, part));
            go_on(&it, part);
        }
    }
}

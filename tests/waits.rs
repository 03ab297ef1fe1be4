// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever takes a message out of force does not return while that message is being sent.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use msiroute::backend::model::{Irqchip, Model};
use msiroute::backend::Host;
use msiroute::device::{Capability, MsiForm, Place, Raw};
use msiroute::message::Message;
use msiroute::{Config, Delivery, Device, DeviceConfig, Kind, Result, RouteCache};

const APIC: u64 = 0xFEE0_0000;
const CAPABILITY: u8 = 0x60;
/// How long a change that does not wait may take to be found out.
const LONG_ENOUGH: Duration = Duration::from_millis(20);

type Change = fn(&Device, &Arc<RouteCache>) -> Result<()>;

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// Makes the change while a message of vector 0 is being sent.
fn changes_while_sending(kind: Kind, no_direct: bool, name: &str, change: Change) {
    let [hold, is_inside, is_done] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
    let guest = {
        let (hold, is_inside) = (hold.clone(), is_inside.clone());
        move |_: &Message| {
            is_inside.store(true, Ordering::SeqCst);
            wait_until(|| !hold.load(Ordering::SeqCst));
            1
        }
    };
    let model = Model::new(Irqchip::Full, Model::x86_features(), Box::new(guest)).unwrap();
    let config = Config { no_direct, ..Config::default() };
    let cache = RouteCache::new(Host::Other(Box::new(model)), &config).unwrap();
    let pba = Place { bar: 1, offset: 0 };
    let capability = Capability { offset: CAPABILITY, pba, ..Capability::default() };
    let capability = (kind != Kind::Plain).then_some(capability);
    let device =
        Device::new(&cache, DeviceConfig { capability, ..DeviceConfig::new(kind, 2) }).unwrap();
    match kind {
        Kind::Msi(_) => {
            let [a, b, c, d, ..] = APIC.to_le_bytes();
            assert!(device.config_write(0x64, &[a, b, c, d]).unwrap());
            assert!(device.config_write(0x68, &[0x41, 0]).unwrap());
            assert!(device.config_write(0x62, &[0x01, 0]).unwrap());
        }
        _ => device.set(0, APIC, 0x41).unwrap(),
    }
    if kind == Kind::Msix {
        device.set_control(true, false).unwrap();
        device.unmask(0).unwrap();
    }
    // So that a route is there: who makes one is not sending yet.
    assert_eq!(device.deliver(0).unwrap(), Delivery::Sent);

    is_inside.store(false, Ordering::SeqCst);
    hold.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| device.deliver(0).unwrap());
        wait_until(|| is_inside.load(Ordering::SeqCst));
        let changer = scope.spawn(|| {
            change(&device, &cache).unwrap();
            is_done.store(true, Ordering::SeqCst);
        });
        std::thread::sleep(LONG_ENOUGH);
        let was_done = is_done.load(Ordering::SeqCst);
        hold.store(false, Ordering::SeqCst);
        changer.join().unwrap();
        assert_eq!(sender.join().unwrap(), Delivery::Sent);
        assert!(!was_done, "{name} returned while the message was being sent");
    });
}

const OF_ALL: &[(&str, Change)] = &[
    ("mask", |device, _| device.mask(0)),
    ("bus master off", |device, _| device.set_bus_master(false)),
    ("reset", |device, _| device.reset()),
    ("close", |device, _| device.close()),
    ("pause", |_, cache| cache.pause()),
    ("load", |device, _| {
        let other = Device::new(
            &RouteCache::new(Host::Other(Box::new(quiet_model())), &Config::default()).unwrap(),
            DeviceConfig::new(device_kind(device), 2),
        )?;
        let mut state = vec![0; other.save_size()];
        other.save(&mut state)?;
        device.load(&state)
    }),
];

const OF_MSIX: &[(&str, Change)] = &[
    ("set", |device, _| device.set(0, APIC, 0x42)),
    ("clear", |device, _| device.clear(0)),
    ("disable", |device, _| device.set_control(false, false)),
    ("function mask", |device, _| device.set_control(true, true)),
    ("disable, written", |device, _| device.config_write(0x63, &[0]).map(|_| ())),
    ("mask, written", |device, _| device.table_write(12, &[1, 0, 0, 0])),
    ("mask and data, written", |device, _| device.table_write(8, &[0x42, 0, 0, 0, 1, 0, 0, 0])),
    ("message, written", |device, _| {
        device.table_write(0, &APIC.to_le_bytes())?;
        device.table_write(8, &[0x42, 0, 0, 0])
    }),
    ("import", |device, _| device.import(Raw { table: &[0; 32], ..Raw::default() })),
];

const OF_MSI: &[(&str, Change)] = &[
    ("disable", |device, _| device.set_control(false, false)),
    ("disable, written", |device, _| device.config_write(0x62, &[0]).map(|_| ())),
    ("mask, written", |device, _| device.config_write(0x6C, &[1]).map(|_| ())),
    // The low bit of the data is the vector's number then: another message.
    ("two messages", |device, _| device.config_write(0x62, &[0x11]).map(|_| ())),
    ("message, written", |device, _| {
        device.config_write(0x64, &[0, 0x10, 0xE0, 0xFE, 0x42, 0]).map(|_| ())
    }),
];

const MSI: Kind = Kind::Msi(MsiForm { wide: false, maskable: true });

/// For a device that only says what a new one is like.
fn quiet_model() -> Model {
    Model::new(Irqchip::Full, Model::x86_features(), Box::new(|_| 1)).unwrap()
}

fn device_kind(device: &Device) -> Kind {
    match device.capability_size() {
        0 => Kind::Plain,
        12 => Kind::Msix,
        _ => MSI,
    }
}

#[test]
fn a_change_waits_for_the_message_under_way() {
    let plain = OF_ALL.iter().chain(&[("clear", (|device, _| device.clear(0)) as Change)]);
    for (kind, changes) in [
        (Kind::Plain, plain.copied().collect::<Vec<_>>()),
        (Kind::Msix, [OF_ALL, OF_MSIX].concat()),
        (MSI, [OF_ALL, OF_MSI].concat()),
    ] {
        for (name, change) in changes {
            for no_direct in [false, true] {
                changes_while_sending(kind, no_direct, &format!("{kind:?}: {name}"), change);
            }
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is below the library, and judges its messages.

use std::sync::{Arc, Mutex};

use msiroute::backend::model::{Irqchip, Model};
use msiroute::backend::{Backend, Features};
use msiroute::message::{Message, NO_REQUESTER};

use super::step::Shape;
use super::tap::Message64;
use super::Expected;

pub trait Machine {
    fn backend(&self) -> Arc<dyn Backend>;
    /// Bound eventfds that have been signalled are taken.
    fn settle(&self);
    /// Panics if other messages have come since it was asked last.
    fn check(&self, expected: Expected);
    /// Whether the APIC of this address takes messages.
    fn takes(&self, address: u64) -> bool;
}

pub struct OnModel {
    model: Arc<Model>,
    received: Arc<Mutex<Vec<Message64>>>,
}

/// Nobody's APIC.
fn takes(address: u64) -> bool {
    address >> 12 & 0xFF != 7
}

impl OnModel {
    pub fn new(shape: &Shape) -> Self {
        let received: Arc<Mutex<Vec<Message64>>> = Arc::default();
        let (receive, has_requester) = (received.clone(), shape.requester);
        let guest = move |message: &Message| {
            let requester = if has_requester { message.requester } else { NO_REQUESTER };
            receive.lock().unwrap().push((message.address, message.data, requester));
            i32::from(takes(message.address))
        };
        let features = Features { requester: shape.requester, ..Model::x86_features() };
        let irqchip = if shape.split { Irqchip::Split } else { Irqchip::Full };
        let model = Model::new(irqchip, features, Box::new(guest)).unwrap();
        OnModel { model: Arc::new(model), received }
    }
}

impl Machine for OnModel {
    fn backend(&self) -> Arc<dyn Backend> {
        self.model.clone()
    }

    fn settle(&self) {
        self.model.settle();
    }

    fn check(&self, expected: Expected) {
        let Expected { sure, mut maybe } = expected;
        let mut received = std::mem::take(&mut *self.received.lock().unwrap());
        let all = received.clone();
        let mut take = |message: &Message64| {
            let at = received.iter().position(|it| it == message);
            at.map(|at| received.swap_remove(at))
        };
        for message in &sure {
            assert!(take(message).is_some(), "{message:x?} is missing among {all:x?}");
        }
        for message in &received {
            let at = maybe.iter().position(|it| it == message);
            assert!(at.is_some(), "{message:x?} is too much: {all:x?}, sure {sure:x?}");
            maybe.swap_remove(at.unwrap());
        }
    }

    fn takes(&self, address: u64) -> bool {
        takes(address)
    }
}

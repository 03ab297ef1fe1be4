// SPDX-License-Identifier: MIT OR Apache-2.0
//! The model of KVM below the library.

use std::sync::{Arc, Mutex};

use msiroute::backend::model::{Irqchip, Model};
use msiroute::backend::Host;

use super::{Machine, NOBODY};
use crate::reference::Message;

pub struct OnModel {
    model: Arc<Model>,
    received: Arc<Mutex<Vec<Message>>>,
}

impl OnModel {
    pub fn new() -> Self {
        let received: Arc<Mutex<Vec<Message>>> = Arc::default();
        let receive = received.clone();
        let guest = move |message: &msiroute::message::Message| {
            receive.lock().unwrap().push((message.address, message.data));
            i32::from(message.address != NOBODY)
        };
        let model = Model::new(Irqchip::Full, Model::x86_features(), Box::new(guest)).unwrap();
        OnModel { model: Arc::new(model), received }
    }
}

impl Machine for OnModel {
    fn host(&self) -> Host {
        Host::Other(Box::new(self.model.clone()))
    }

    fn check_sent(&self, expected: Vec<Message>) {
        self.model.settle();
        let mut received = std::mem::take(&mut *self.received.lock().unwrap());
        received.sort_unstable();
        assert_eq!(received, expected, "messages");
    }

    fn irqfds(&self) -> Option<usize> {
        Some(self.model.irqfds())
    }
}

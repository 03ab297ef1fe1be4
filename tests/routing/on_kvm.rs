// SPDX-License-Identifier: MIT OR Apache-2.0
//! A real VM below.

use std::sync::Arc;
use std::time::Duration;

use msiroute::backend::Backend;

use super::lapic::{apic, Arrived, OnKvm, DEADLINE};
use super::machine::Machine;
use super::tap::Message64;
use super::Expected;

/// For what may come or not.
const A_LITTLE: Duration = Duration::from_millis(3);

fn arrival(&(address, data, _): &Message64) -> (u64, u32) {
    (apic(address), data)
}

impl Machine for OnKvm {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.kvm_backend())
    }

    fn settle(&self) {}

    fn check(&self, expected: Expected) {
        let sure: Arrived = expected.sure.iter().map(arrival).collect();
        let maybe: Arrived = expected.maybe.iter().map(arrival).collect();
        // What binding finds counted, the kernel sends a little later: not to be taken for the next step's.
        let arrived = self.take_irr_while(|arrived, time| match arrived.is_superset(&sure) {
            true => !arrived.is_superset(&maybe) && time < A_LITTLE,
            false => time < DEADLINE,
        });
        assert!(arrived.is_superset(&sure), "{arrived:x?}, not {sure:x?}");
        assert!((&sure | &maybe).is_superset(&arrived), "{arrived:x?}, not only {sure:x?}");
    }

    fn takes(&self, _address: u64) -> bool {
        true
    }
}

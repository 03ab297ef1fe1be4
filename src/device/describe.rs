// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a device says of itself to people.

use super::{closed, Device};
use crate::dump::{DeviceState, VectorState};
use crate::error::Result;
use crate::memory::list_of;
use crate::trace;

impl Device {
    /// As it is at one moment; also if it is closed.
    pub(super) fn describe(&self) -> Result<DeviceState<'_>> {
        let mut vectors = list_of(self.vectors.len())?;
        let control = self.control();
        vectors.extend(self.vectors.iter().zip(&control.vectors).map(
            |(vector, vector_control)| {
                let eventfds = vector_control.eventfds.as_deref();
                VectorState {
                    info: self.info_of(vector, vector_control),
                    pending: vector.is_pending() || eventfds.is_some_and(|it| it.has_counted()),
                    bound: eventfds.map_or(0, |it| it.bound()),
                }
            },
        ));
        Ok(DeviceState {
            id: trace::id(self),
            name: &self.name,
            kind: self.kind,
            requester: control.requester,
            state: self.state(),
            closed: self.gate.bits() & closed::UNPLUGGED != 0,
            vectors,
        })
    }
}

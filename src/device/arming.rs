// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device's vectors as what is armed: which route an open vector wants, and its eventfds bound to it.

use super::Device;
use crate::changed::Changed;
use crate::error::{Error, Result};
use crate::owner::{Finish, Owner, Sample, ServedBy, Stage, Staged, Verdict};
use crate::routes::{Change, PinnedRoute};

impl Owner for Device {
    fn stage(&self, index: u32) -> Stage {
        stage(self, index)
    }

    fn finish(&self, index: u32, staged: &Staged, route: Result<u32>) -> Finish {
        match (&staged.change, route) {
            (Change::Own(..), Ok(_)) => Finish::Again,
            (_, route) => Finish::Done(finish(self, index, staged, route)),
        }
    }

    fn hand_over(&self, index: u32) -> Result<()> {
        Device::hand_over(self, index)
    }

    fn tell(&self, changed: Changed) {
        self.tell_unless_paused(changed);
    }

    fn signalled(&self, index: u32) {
        self.relay_signalled(index);
    }

    fn served_by(&self, index: u32) -> ServedBy {
        self.relay_served_by(index)
    }

    fn heat(&self, index: u32) -> u32 {
        self.relay_heat(index)
    }

    fn sample(&self, index: u32) -> Sample {
        self.relay_sample(index)
    }

    fn judge(&self, index: u32) -> Verdict {
        self.relay_judge(index)
    }
}

fn stage(device: &Device, index: u32) -> Stage {
    let mut control = device.control();
    let Ok((vector, vector_control)) = device.both(&mut control, index) else {
        return Stage::Done(Ok(()));
    };
    let generation = vector_control.generation;
    let Some(eventfds) = &mut vector_control.eventfds else {
        return Stage::Done(Ok(()));
    };
    let open_message = vector.message().filter(|_| vector.is_open(&device.gate));
    let staged = |change| Stage::Change(Staged { generation, change, from: None });
    if let Some(gsi) = eventfds.pin {
        let routes = &device.cache.routes;
        // What it carries is asked of the table: changes of it may have overtaken each other.
        let (now, wanted) = (routes.pin_message(gsi), vector.message());
        if now != wanted.map(|message| routes.key(&message)) {
            if wanted.is_none() && eventfds.is_bound_to(gsi) {
                let what = "a pin's eventfd cannot be unbound, so its route stays";
                return Stage::Done(Err(Error::new(libc::EBUSY, what)));
            }
            return staged(Change::Own(gsi, wanted));
        }
        eventfds.refusal = 0;
        eventfds.route = wanted.map(|message| PinnedRoute { gsi, message });
    }
    let Some(message) = open_message else {
        return Stage::Done(Ok(()));
    };
    if eventfds.route.is_some_and(|route| route.message == message) {
        let (counted, result) = eventfds.bind(&device.cache);
        if counted {
            vector.set_pending();
        }
        return Stage::Done(result);
    }
    if !eventfds.may_be_bound() {
        return Stage::Done(Ok(()));
    }
    let from = eventfds.route.take();
    let change = match from {
        Some(route) => Change::Retarget(route.gsi, message),
        None => Change::Pin(message),
    };
    Stage::Change(Staged { generation, change, from })
}

fn finish(device: &Device, index: u32, staged: &Staged, route: Result<u32>) -> Result<()> {
    let Staged { generation, change, from } = staged;
    let cache = &device.cache;
    let mut control = device.control();
    let Ok((vector, vector_control)) = device.both(&mut control, index) else {
        return Ok(());
    };
    let is_pin = matches!(change, Change::Own(..));
    let is_wanted =
        vector_control.generation == *generation && (is_pin || vector.is_open(&device.gate));
    let Some(eventfds) = &mut vector_control.eventfds else {
        // All eventfds are gone: nothing stands on these routes. (In place, it is one.)
        let gsi = route.ok();
        let from = from.map(|from| from.gsi).filter(|&from| Some(from) != gsi);
        gsi.into_iter().chain(from).for_each(|gsi| cache.routes.unpin(gsi));
        return Ok(());
    };
    let gsi = match route {
        Ok(gsi) => gsi,
        Err(refusal) => {
            // Unless somebody else has served the vector meanwhile, no old message is left live: the
            // eventfds count.
            let is_served = eventfds.all_send(vector.message());
            let unbound = if is_served { Ok(()) } else { eventfds.unbind(cache) };
            if let Some(from) = from {
                eventfds.give_up(cache, *from);
            }
            if is_wanted && !is_served {
                eventfds.refusal = refusal.errno();
                return Err(refusal);
            }
            return unbound;
        }
    };
    let (Change::Pin(message) | Change::Retarget(_, message)) = *change else {
        return Ok(());
    };
    let pin = PinnedRoute { gsi, message };
    let mut result = Ok(());
    if is_wanted {
        let other = eventfds.route.replace(pin);
        let (counted, bound) = eventfds.bind(cache);
        if counted {
            vector.set_pending();
        }
        result = bound;
        if let Some(other) = other {
            // Somebody else was faster.
            eventfds.give_up(cache, other);
        }
    } else {
        eventfds.give_up(cache, pin);
    }
    if let Some(from) = from.filter(|from| from.gsi != gsi) {
        eventfds.give_up(cache, from);
    }
    result
}

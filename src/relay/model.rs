// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every interleaving of an eventfd's hand-over between the kernel, the relay and nobody: no signal is lost, none makes two
//! messages, and a masked vector sends none. The vector is the library's; the eventfd, epoll and the irqfd are as the kernel
//! has them: one lock (the eventfd's own) decides who takes a signal.

use loom::sync::Arc;
use loom::thread;

use crate::message::Message;
use crate::sync::Mutex;
use crate::vector::{wait_for_deliveries, Attempt, Cause, Gate, Vector};

const MESSAGE: Message = Message { address: 0xFEE0_0000, data: 1, requester: 1 };

/// What the kernel knows of the eventfd.
#[derive(Default)]
struct Kernel {
    counter: u32,
    is_irqfd: bool,
    is_heard: bool,
    /// epoll has an event to tell.
    edge: bool,
    /// Messages that the guest got.
    sent: u32,
    is_silent: bool,
}

impl Kernel {
    fn send(&mut self) {
        assert!(!self.is_silent, "a masked vector sends");
        self.sent += 1;
    }

    fn signal(&mut self) {
        match self.is_irqfd {
            true => self.send(),
            false => {
                self.counter += 1;
                self.edge |= self.is_heard;
            }
        }
    }

    /// EPOLL_CTL_MOD.
    fn listen(&mut self, on: bool) {
        self.is_heard = on;
        self.edge = on && self.counter > 0;
    }

    fn take_count(&mut self) -> bool {
        std::mem::take(&mut self.counter) > 0
    }
}

/// Under the device's lock.
#[derive(Default)]
struct Control {
    is_deaf: bool,
}

struct Device {
    control: Mutex<Control>,
    vector: Vector,
    gate: Gate,
    kernel: Mutex<Kernel>,
}

impl Device {
    fn hand_over(&self) {
        let send = |_: &Message, _| self.kernel.lock().send();
        let _: Attempt<()> = self.vector.attempt(&self.gate, Cause::Opened, send, |()| true);
    }

    /// As `Device::relay_signalled`, if epoll has something to tell.
    fn relay(&self) {
        if !std::mem::take(&mut self.kernel.lock().edge) {
            return;
        }
        let mut control = self.control.lock();
        if !self.vector.is_open(&self.gate) {
            self.kernel.lock().listen(false);
            control.is_deaf = true;
            return;
        }
        {
            let mut kernel = self.kernel.lock();
            if kernel.is_irqfd || !kernel.take_count() {
                return;
            }
        }
        self.vector.set_pending();
        drop(control);
        self.hand_over();
    }

    fn promote(&self) {
        let control = self.control.lock();
        if self.vector.is_open(&self.gate) {
            // Two system calls, with room for a signal between them: binding looks for it.
            if self.kernel.lock().take_count() {
                self.vector.set_pending();
            }
            let mut kernel = self.kernel.lock();
            kernel.is_irqfd = true;
            if kernel.take_count() {
                kernel.send();
            }
        }
        drop(control);
        self.hand_over();
    }

    fn mask(&self) {
        let _control = self.control.lock();
        self.vector.mask();
        wait_for_deliveries(std::slice::from_ref(&self.vector));
        let mut kernel = self.kernel.lock();
        kernel.is_irqfd = false;
        kernel.is_silent = true;
    }

    fn unmask(&self) {
        let mut control = self.control.lock();
        self.kernel.lock().is_silent = false;
        self.vector.unmask();
        if std::mem::take(&mut control.is_deaf) {
            self.kernel.lock().listen(true);
        }
        drop(control);
        self.hand_over();
    }
}

/// Signals, while the guest changes its mind and the relay runs and promotes. In the end the relay has run until it had nothing to do.
fn explore(guest: fn(&Device), promotes: bool) {
    const SIGNALS: u32 = 2;
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let device = Arc::new(Device {
            control: Mutex::new(Control::default()),
            vector: Vector::new(false),
            gate: Gate::new(0),
            kernel: Mutex::new(Kernel { is_heard: true, ..Kernel::default() }),
        });
        device.vector.set(&MESSAGE);
        let writer = {
            let device = device.clone();
            thread::spawn(move || (0..SIGNALS).for_each(|_| device.kernel.lock().signal()))
        };
        let relay = {
            let device = device.clone();
            thread::spawn(move || {
                device.relay();
                if promotes {
                    device.promote();
                }
            })
        };
        guest(&device);
        writer.join().unwrap();
        relay.join().unwrap();
        device.relay();
        device.relay();
        let kernel = device.kernel.lock();
        assert!(kernel.counter == 0 && !device.vector.is_pending(), "a signal is lost");
        assert!((1..=SIGNALS).contains(&kernel.sent), "{} messages", kernel.sent);
    });
}

#[test]
fn relayed_signals_survive_a_mask() {
    explore(
        |device| {
            device.mask();
            device.unmask();
        },
        false,
    );
}

#[test]
fn promoted_signals_survive_a_mask() {
    explore(
        |device| {
            device.mask();
            device.unmask();
        },
        true,
    );
}

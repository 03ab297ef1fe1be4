// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every interleaving of a vector's transitions: nothing lost, late, doubled or torn.

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::sync::Arc;
use loom::thread;

use super::{wait_for_deliveries, Attempt, Cause, Gate, Vector};
use crate::message::Message;

const OLD: Message = Message { address: 0xFEE0_0000, data: 1, requester: 1 };
const NEW: Message = Message { address: 0xFEE0_1000, data: 2, requester: 2 };

/// A vector, and a guest that counts what it gets.
struct Shared {
    vector: Vector,
    gate: Gate,
    sent: AtomicU32,
    /// Nothing may be sent.
    silent: AtomicBool,
    /// The old message may not be sent.
    old_is_gone: AtomicBool,
}

impl Shared {
    fn new() -> Arc<Self> {
        let shared = Shared {
            vector: Vector::new(false),
            gate: Gate::new(0),
            sent: AtomicU32::new(0),
            silent: AtomicBool::new(false),
            old_is_gone: AtomicBool::new(false),
        };
        shared.vector.set(&OLD);
        Arc::new(shared)
    }

    fn send(&self, message: &Message) {
        assert!(*message == OLD || *message == NEW, "torn: {message:?}");
        assert!(!self.silent.load(Ordering::SeqCst), "late");
        assert!(*message == NEW || !self.old_is_gone.load(Ordering::SeqCst), "stale");
        self.sent.fetch_add(1, Ordering::SeqCst);
    }

    fn attempt(&self, cause: Cause) -> Attempt<()> {
        self.vector.attempt(&self.gate, cause, |message, _| self.send(message), |()| true)
    }

    /// As a device delivers.
    fn deliver(&self) {
        if let Attempt::Closed = self.attempt(Cause::Raised) {
            if self.vector.keep(&self.gate) {
                self.attempt(Cause::Opened);
            }
        }
    }

    /// As a device masks.
    fn mask(&self) {
        self.vector.mask();
        wait_for_deliveries(std::slice::from_ref(&self.vector));
    }

    /// As a device changes the message of an open vector.
    fn set(&self, message: &Message) {
        self.vector.set(message);
        wait_for_deliveries(std::slice::from_ref(&self.vector));
    }

    fn opened(&self) {
        if self.vector.is_pending() {
            self.attempt(Cause::Opened);
        }
    }
}

fn deliverer(shared: &Arc<Shared>) -> thread::JoinHandle<()> {
    let shared = shared.clone();
    thread::spawn(move || shared.deliver())
}

/// Sent once, or still pending: never neither, never both.
fn assert_exactly_once(shared: &Shared) {
    let pending = u32::from(shared.vector.is_pending());
    assert_eq!(shared.sent.load(Ordering::SeqCst) + pending, 1);
}

#[test]
fn mask_silences_and_unmask_hands_over() {
    loom::model(|| {
        let shared = Shared::new();
        let other = deliverer(&shared);
        shared.mask();
        shared.silent.store(true, Ordering::SeqCst);
        shared.silent.store(false, Ordering::SeqCst);
        shared.vector.unmask();
        shared.opened();
        other.join().unwrap();
        assert!(!shared.vector.is_pending());
        assert_exactly_once(&shared);
    });
}

#[test]
fn a_masked_vector_is_silent_and_keeps() {
    loom::model(|| {
        let shared = Shared::new();
        let other = deliverer(&shared);
        shared.mask();
        shared.silent.store(true, Ordering::SeqCst);
        other.join().unwrap();
        assert_exactly_once(&shared);
    });
}

#[test]
fn a_gate_hands_over_too() {
    loom::model(|| {
        let shared = Shared::new();
        shared.gate.change(1, 0);
        let other = deliverer(&shared);
        shared.gate.change(0, 1);
        shared.opened();
        other.join().unwrap();
        assert!(!shared.vector.is_pending());
        assert_exactly_once(&shared);
    });
}

#[test]
fn the_old_message_is_gone_when_set_returns() {
    loom::model(|| {
        let shared = Shared::new();
        let other = deliverer(&shared);
        shared.set(&NEW);
        shared.old_is_gone.store(true, Ordering::SeqCst);
        shared.opened();
        other.join().unwrap();
        assert_exactly_once(&shared);
        assert!(!shared.vector.is_pending());
    });
}

#[test]
fn a_closed_vector_changes_its_message_without_waiting() {
    loom::model(|| {
        let shared = Shared::new();
        let other = deliverer(&shared);
        shared.mask();
        // Twice, so that the copy that was current is written to.
        shared.vector.set(&OLD);
        shared.vector.set(&NEW);
        shared.old_is_gone.store(true, Ordering::SeqCst);
        shared.vector.unmask();
        shared.opened();
        other.join().unwrap();
        assert!(!shared.vector.is_pending());
        assert_exactly_once(&shared);
    });
}

#[test]
fn two_openers_send_one_pending() {
    loom::model(|| {
        let shared = Shared::new();
        shared.mask();
        shared.deliver();
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.vector.unmask();
                shared.opened();
            })
        };
        shared.vector.unmask();
        shared.opened();
        other.join().unwrap();
        assert!(!shared.vector.is_pending());
        assert_exactly_once(&shared);
    });
}

#[test]
fn a_delivery_inside_a_delivery_loses_nothing() {
    loom::model(|| {
        let shared = Shared::new();
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let nested = |_: &Message, _| shared.deliver();
                shared.vector.attempt(&shared.gate, Cause::Raised, nested, |()| true);
            })
        };
        shared.mask();
        shared.silent.store(true, Ordering::SeqCst);
        other.join().unwrap();
        // The outer one may have found the vector masked; then there was no inner one.
        let sent = shared.sent.load(Ordering::SeqCst);
        assert!(sent + u32::from(shared.vector.is_pending()) <= 1);
    });
}

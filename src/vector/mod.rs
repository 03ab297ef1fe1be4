// SPDX-License-Identifier: MIT OR Apache-2.0
//! One vector: a message, whether it may be sent, and whether one is pending.
//!
//! The state is one word, and the message is kept twice: a change writes the copy that is not in use
//! and then flips a bit of the state. A delivery reads the state once and so sees the old message or
//! the new one, never half of each. Everything a delivery does happens in a section of
//! [`Readers`]; a change waits for the sections that may have seen the state from before it, so that
//! when it returns the old message can no longer be sent.
//!
//! # Pending is never lost and never doubled
//!
//! Whether a vector is open depends on two words: its own state and its function's gate.
//! A delivery that finds either closed first sets PENDING, *then looks again*; whoever opens either
//! first opens, *then looks for PENDING*. All four are sequentially consistent, so at least one of
//! them sees the other. Whoever takes the bit away (one atomic instruction, so one thread) sends.
//!
//! # Who may call what
//!
//! [`Vector::attempt`], [`Vector::keep`] and the reads: any thread. What changes the message or the
//! blocking bits: only under the device's control lock, which keeps changes apart from each other.

use crate::message::Message;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{self, FastSection, Readers};

/// The vector's own mask bit.
const MASKED: u32 = 1 << 0;
/// There is no message.
const UNSET: u32 = 1 << 1;
/// A change waits for counted readers to run dry: see [`wait_for_deliveries`].
const HELD: u32 = 1 << 2;
/// Something was raised while the vector could not send.
const PENDING: u32 = 1 << 3;
/// Which of the two messages is the current one.
const SECOND: u32 = 1 << 4;
/// A delivery has been attempted: changes must wait for readers. Never cleared.
const DELIVERS: u32 = 1 << 5;

/// There is no message because the vIOMMU has none for it; UNSET is set too.
const BLOCKED: u32 = 1 << 6;

const CLOSED: u32 = MASKED | UNSET | HELD;

/// What a function's registers, its owner and its cache say about all its vectors at once: open if
/// zero. The bits are the device's business.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU32);

impl Gate {
    pub fn new(bits: u32) -> Self {
        Gate(AtomicU32::new(bits))
    }

    #[inline(always)]
    pub fn bits(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    #[inline(always)]
    fn is_open(&self) -> bool {
        self.bits() == 0
    }

    /// The bits before. SeqCst: pairs with [`Vector::keep`], as the module says.
    pub fn change(&self, set: u32, clear: u32) -> u32 {
        let change = |bits| Some((bits & !clear) | set);
        match self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change) {
            Ok(before) | Err(before) => before,
        }
    }
}

/// Written by whoever changes the vector, read in sections; torn reads are excluded by the flip.
#[derive(Debug)]
struct MessageCell {
    address: AtomicU64,
    data: AtomicU32,
    requester: AtomicU32,
}

impl MessageCell {
    fn new() -> Self {
        MessageCell {
            address: AtomicU64::new(0),
            data: AtomicU32::new(0),
            requester: AtomicU32::new(0),
        }
    }

    fn store(&self, message: &Message) {
        self.address.store(message.address, Ordering::Relaxed);
        self.data.store(message.data, Ordering::Relaxed);
        self.requester.store(message.requester, Ordering::Relaxed);
    }

    #[inline(always)]
    fn load(&self) -> Message {
        Message {
            address: self.address.load(Ordering::Relaxed),
            data: self.data.load(Ordering::Relaxed),
            requester: self.requester.load(Ordering::Relaxed),
        }
    }
}

/// Why a delivery is attempted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Something happened: send, together with what is pending.
    Raised,
    /// The vector was opened: send if something is pending.
    Opened,
}

/// What an attempt came to.
pub(crate) enum Attempt<T> {
    /// `send` was called, and said this.
    Sent(T),
    /// Not open; nothing was changed.
    Closed,
    /// Nothing was pending ([`Cause::Opened`] only).
    Nothing,
}

/// One vector of a device. Its control side (eventfds, the guest's form of the message) is in
/// `device`.
// In this order: who reads the readers' address has the vector's.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Vector {
    readers: Readers,
    state: AtomicU32,
    messages: [MessageCell; 2],
}

impl Vector {
    pub fn new(masked: bool) -> Self {
        Vector {
            state: AtomicU32::new(if masked { MASKED | UNSET } else { UNSET }),
            readers: Readers::new(),
            messages: [MessageCell::new(), MessageCell::new()],
        }
    }

    pub fn readers(&self) -> &Readers {
        &self.readers
    }

    // ---- any thread ----------------------------------------------------------------------------

    /// The message to send, and the section to send it in, in the case that is nearly all there is: open,
    /// nothing pending, a slot at hand. `None` in any other.
    #[inline(always)]
    pub fn open_fast(&self, gate: &Gate) -> Option<(FastSection, Message)> {
        let section = self.readers.enter_fast()?;
        // Nothing is left, but for which message it is.
        let rest = self.state.load(Ordering::Acquire).wrapping_sub(DELIVERS);
        if rest & !SECOND != 0 || !gate.is_open() {
            return None;
        }
        Some((section, self.current(rest).load()))
    }

    /// Calls `send` with the message, and whether the section is counted, if the vector is open. If `is_gone` says that what `send` said means
    /// that nothing was sent, what was pending stays so.
    pub fn attempt<T>(
        &self,
        gate: &Gate,
        cause: Cause,
        send: impl FnOnce(&Message, bool) -> T,
        is_gone: impl FnOnce(&T) -> bool,
    ) -> Attempt<T> {
        let section = self.readers.enter();
        let mut state = self.state.load(Ordering::Acquire);
        if state & DELIVERS == 0 {
            state = self.first_attempt();
        }
        if state & CLOSED != 0 || !gate.is_open() {
            return Attempt::Closed;
        }
        let took_pending = state & PENDING != 0 && self.take_pending();
        if cause == Cause::Opened && !took_pending {
            return Attempt::Nothing;
        }
        let result = send(&self.current(state).load(), section.is_counted());
        if took_pending && !is_gone(&result) {
            self.set_pending();
        }
        Attempt::Sent(result)
    }

    /// A change that does not see this bit does not wait; but then it came before, in the word's own
    /// order, and is seen here.
    #[cold]
    fn first_attempt(&self) -> u32 {
        self.state.fetch_or(DELIVERS, Ordering::SeqCst)
    }

    /// Keeps an interrupt for later. If this returns true, look whether it can be sent now: the
    /// vector was opened meanwhile.
    #[must_use]
    pub fn keep(&self, gate: &Gate) -> bool {
        self.set_pending();
        self.is_open(gate)
    }

    pub fn set_pending(&self) {
        self.state.fetch_or(PENDING, Ordering::SeqCst);
    }

    /// Whether it was pending.
    pub fn take_pending(&self) -> bool {
        self.state.fetch_and(!PENDING, Ordering::SeqCst) & PENDING != 0
    }

    pub fn is_pending(&self) -> bool {
        self.state.load(Ordering::SeqCst) & PENDING != 0
    }

    pub fn is_masked(&self) -> bool {
        self.state.load(Ordering::SeqCst) & MASKED != 0
    }

    pub fn is_set(&self) -> bool {
        self.state.load(Ordering::SeqCst) & UNSET == 0
    }

    /// Whether a message could be sent now.
    pub fn is_open(&self, gate: &Gate) -> bool {
        self.state.load(Ordering::SeqCst) & CLOSED == 0 && gate.is_open()
    }

    /// The vIOMMU refuses its message.
    pub fn is_blocked(&self) -> bool {
        self.state.load(Ordering::SeqCst) & BLOCKED != 0
    }

    /// And that alone keeps it from sending.
    pub fn is_only_blocked(&self, gate: &Gate) -> bool {
        let state = self.state.load(Ordering::SeqCst);
        state & BLOCKED != 0 && state & CLOSED == UNSET && gate.is_open()
    }

    /// The message that would be sent now, if one would.
    pub fn read_message(&self, gate: &Gate) -> Option<Message> {
        let _section = self.readers.enter();
        let state = self.state.load(Ordering::Acquire);
        // Of a closed vector it may be changing: a change waits for sections only if it was open.
        (state & CLOSED == 0 && gate.is_open()).then(|| self.current(state).load())
    }

    #[inline(always)]
    fn current(&self, state: u32) -> &MessageCell {
        let [first, second] = &self.messages;
        if state & SECOND == 0 {
            first
        } else {
            second
        }
    }

    // ---- under the control lock ----------------------------------------------------------------
    //
    // None of these waits: who makes a change that a delivery under way may not have seen calls
    // `wait_for_deliveries` after it, once for many vectors. A vector that was not open needs none.

    /// The message, in the kernel's form.
    pub fn message(&self) -> Option<Message> {
        let state = self.state.load(Ordering::Acquire);
        (state & UNSET == 0).then(|| self.current(state).load())
    }

    /// No more messages until [`Vector::unmask`].
    pub fn mask(&self) {
        self.state.fetch_or(MASKED, Ordering::SeqCst);
    }

    /// Pending becomes sendable; who calls this then attempts with [`Cause::Opened`].
    pub fn unmask(&self) {
        self.state.fetch_and(!MASKED, Ordering::SeqCst);
    }

    /// No message any more, until [`Vector::set`].
    pub fn unset(&self) {
        self.change_state(|state| (state | UNSET) & !BLOCKED);
    }

    /// The same, and the vIOMMU is why.
    pub fn block(&self) {
        self.state.fetch_or(UNSET | BLOCKED, Ordering::SeqCst);
    }

    /// Another message. Pending may have become sendable, as after [`Vector::unmask`].
    pub fn set(&self, message: &Message) {
        let state = self.state.load(Ordering::Relaxed);
        self.current(state ^ SECOND).store(message);
        // Release: who sees the flip sees the message.
        self.change_state(|state| (state ^ SECOND) & !(UNSET | BLOCKED));
    }

    fn change_state(&self, change: impl Fn(u32) -> u32) {
        // Always succeeds: the closure always has a value.
        let change = |state| Some(change(state));
        let _ = self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
    }

    /// Whether a change must wait for its deliveries. SeqCst: a delivery whose bit is not seen here comes
    /// after the change, in the order of all such accesses, and sees it.
    fn delivers(&self) -> bool {
        self.state.load(Ordering::SeqCst) & DELIVERS != 0
    }
}

/// After this returns no delivery acts on what was true of these vectors, or of their gate, before the
/// change that the caller has just made: their old messages are not sent any more. Pending may have become
/// sendable meanwhile. `vectors` lie in one slice, so that one barrier does for all.
pub(crate) fn wait_for_deliveries(vectors: &[Vector]) {
    let (Some(first), Some(last)) = (vectors.first(), vectors.last()) else { return };
    if !vectors.iter().any(Vector::delivers) {
        return;
    }
    sync::wait_for_slots_of(&first.readers, &last.readers);
    for vector in vectors.iter().filter(|vector| vector.readers.any_counted()) {
        // Unlike slots, a count does not tell the sections from before the change from later ones: the later
        // ones are held off, so that they cannot keep us waiting for ever.
        vector.state.fetch_or(HELD, Ordering::SeqCst);
        vector.readers.wait_counted();
        vector.state.fetch_and(!HELD, Ordering::SeqCst);
    }
}

#[cfg(all(test, loom))]
mod model;

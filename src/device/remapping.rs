// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device's messages through the vIOMMU.
//!
//! A translation is *outdated* when the message is changed and when an invalidation concerns it. A changed message takes the
//! old one away at once; an invalidated one stays until its new translation is exchanged for it, or the vector is closed.
//! Only what a vector could send is translated: a closed one waits until it is opened.
//!
//! The vIOMMU is asked without the device's lock, so what it said may be outdated by then. Each vector counts what outdates its
//! translation; an answer is used only if the count is still that of the question, else it is asked again. Who outdates a
//! translation goes on until it, or a later one, has been answered, so that nothing old is sent when the call returns.
//! (Threads that do so at once cannot keep each other asking for ever: while all of them ask, nobody outdates.)

use std::ops::{Range, RangeInclusive};

use super::change::{GateChange, Outcome};
use super::{closed, Control, Device, Kind, VectorControl};
use crate::message::{GuestMessage, NO_REQUESTER};
use crate::remap::{self, NO_TAG};
use crate::vector::Vector;

/// Of one vector's message.
#[derive(Clone, Copy)]
pub(super) struct Translation {
    /// Of the answer in use.
    tag: u64,
    /// Counts what outdates the translation.
    asked: u32,
    /// For which of these the answer in use was given, or found not to be needed.
    answered: u32,
}

/// What is in force of it after a change.
pub(super) enum InForce {
    /// What was.
    Same,
    Nothing,
    /// What the vIOMMU made of the message; `None`: it is blocked.
    Answer(Option<GuestMessage>),
}

/// What the vIOMMU said.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    /// To which count of the question.
    asked: u32,
    translation: remap::Translation,
}

struct Question {
    index: u32,
    /// The question is not to be asked any more when this is answered.
    until: u32,
    asked: u32,
    message: GuestMessage,
}

impl Translation {
    const NEW: Translation = Translation { tag: NO_TAG, asked: 0, answered: 0 };

    fn outdate(&mut self) {
        self.asked = self.asked.wrapping_add(1);
    }

    pub fn tag(&self) -> u64 {
        self.tag
    }

    pub fn is_outdated(&self) -> bool {
        self.asked != self.answered
    }

    /// The message is changed; `to` is it, if the vIOMMU is to be asked.
    pub fn change(&mut self, to: Option<GuestMessage>) -> InForce {
        self.outdate();
        self.tag = NO_TAG;
        if to.is_none() {
            self.answered = self.asked;
        }
        InForce::Nothing
    }

    /// The message stays, and this is what the vIOMMU made of it.
    pub fn answer(&mut self, answer: Answer) -> InForce {
        let Answer { asked, translation } = answer;
        if asked != self.asked {
            return InForce::Same;
        }
        (self.tag, self.answered) = (translation.tag, asked);
        InForce::Answer(translation.message)
    }
}

impl Device {
    /// Whether its messages go through the vIOMMU.
    pub(super) fn is_remapped(&self) -> bool {
        self.remap && self.cache.remap().is_used()
    }

    /// It would be open if the vIOMMU had said what it sends.
    pub(super) fn waits_for_translation(&self, vector: &Vector, control: &VectorControl) -> bool {
        let is_asked = |message| self.is_translatable(message);
        self.is_remapped()
            && !(vector.is_masked() || vector.is_set() || vector.is_blocked())
            && self.gate.bits() == 0
            && control.message().is_some_and(is_asked)
    }

    /// A new device has none, for most are never remapped.
    pub(super) fn new_translations(&self) -> Box<[Translation]> {
        vec![Translation::NEW; self.vectors.len()].into()
    }

    /// The vIOMMU would be asked about this message.
    pub(super) fn is_translatable(&self, message: GuestMessage) -> bool {
        self.cache.is_interrupt(message) && !self.is_off(message)
    }

    /// These tags of this requester's, or of anybody's, are invalid.
    pub(super) fn invalidate(&self, requester: u32, tags: &RangeInclusive<u64>) {
        let mut control = self.control.lock();
        let is_own = requester == NO_REQUESTER || requester == control.requester;
        if self.check_alive().is_ok() && is_own && self.summarize(&mut control).concerns(tags) {
            control.summary = None;
            self.outdate(&mut control, |vector, tag| {
                // Why a message without a tag is blocked, nobody knows.
                tags.contains(&tag) || (tag == NO_TAG && vector.is_blocked())
            });
        }
    }

    pub(super) fn outdate(&self, control: &mut Control, is_meant: impl Fn(&Vector, u64) -> bool) {
        if !self.is_remapped() {
            return;
        }
        let translations = control.translations.get_or_insert_with(|| self.new_translations());
        let vectors = self.vectors.iter().zip(&control.vectors);
        for ((vector, vector_control), translation) in vectors.zip(translations) {
            let is_asked = |message: GuestMessage| self.is_translatable(message);
            // What is being asked about now has no tag yet.
            let concerns = translation.is_outdated() || is_meant(vector, translation.tag);
            if concerns && vector_control.message().is_some_and(is_asked) {
                translation.outdate();
            }
        }
    }

    /// Asks about what is outdated and could be sent, and exchanges the messages; in `indices`. Nothing of what was outdated
    /// when it was called is sent any more when it returns.
    pub(super) fn translate(&self, indices: Range<u32>) -> Outcome {
        let mut outcome = Outcome::nothing(0..0);
        if !self.is_remapped() {
            return outcome;
        }
        let Ok(mut control) = self.lock() else { return outcome };
        let mut questions = self.questions(&mut control, indices);
        let range = |questions: &[Question]| match questions {
            [first, .., last] => first.index..last.index.saturating_add(1),
            [only] => only.index..only.index.saturating_add(1),
            [] => 0..0,
        };
        outcome.indices = range(&questions);
        while !questions.is_empty() {
            let requester = control.requester;
            drop(control);
            let not_now = || self.cache.is_paused();
            let ask = |question: &Question| {
                let remap = self.cache.remap();
                let translation = remap.translate(requester, question.message, not_now)?;
                Some(Answer { asked: question.asked, translation })
            };
            let answers: Option<Vec<Answer>> = questions.iter().map(ask).collect();
            if let Some(answers) = answers {
                let Ok(locked) = self.lock() else { return outcome };
                let answer = |index: u32| {
                    let at = questions.binary_search_by_key(&index, |question| question.index);
                    at.ok().and_then(|at| answers.get(at).copied())
                };
                outcome.add(self.change_locked(
                    locked,
                    GateChange::NONE,
                    range(&questions),
                    |index, _, wanted| wanted.answer = answer(index),
                ));
            } else {
                // The cache is being paused, or resumed: this device too when that is done.
                self.cache.wait_for_pause();
            }
            let Ok(locked) = self.lock() else { return outcome };
            control = locked;
            questions.retain_mut(|question| self.is_to_be_asked(&mut control, question));
        }
        outcome
    }

    fn questions(&self, control: &mut Control, indices: Range<u32>) -> Vec<Question> {
        let mut questions = Vec::new();
        for index in indices {
            let translations = control.translations.as_deref();
            let translation = translations.and_then(|all| all.get(index as usize));
            let Some(&Translation { asked, .. }) = translation.filter(|it| it.is_outdated()) else {
                continue;
            };
            let mut question =
                Question { index, until: asked, asked, message: GuestMessage::default() };
            if self.is_to_be_asked(control, &mut question) {
                questions.push(question);
            }
        }
        questions
    }

    /// If so, brings it up to date. Of a vector that could not send, the old translation goes.
    fn is_to_be_asked(&self, control: &mut Control, question: &mut Question) -> bool {
        let at = question.index as usize;
        let translation = control.translations.as_deref().and_then(|all| all.get(at));
        let (Some(translation), Some(vector), Some(vector_control)) =
            (translation, self.vectors.get(at), control.vectors.get_mut(at))
        else {
            return false;
        };
        // At or beyond it, of counts that wrap around.
        if translation.answered.wrapping_sub(question.until) <= u32::MAX / 2 {
            return false;
        }
        let Some(message) = vector_control.message() else { return false };
        let gate = self.gate.bits();
        // A pin's message is in the kernel's table even while it is masked.
        let is_closed = match self.kind {
            Kind::Pins { .. } => gate & closed::PAUSED != 0,
            _ => vector.is_masked() || gate != 0,
        };
        if is_closed {
            vector.unset();
            vector_control.generation = vector_control.generation.wrapping_add(1);
            // One that its source keeps silent may still be bound, to the old message.
            let unbound =
                vector_control.eventfds.as_mut().map_or(Ok(()), |it| it.unbind(&self.cache));
            if let Err(e) = unbound {
                log::error!("{}: {e}", self.name);
            }
            return false;
        }
        (question.asked, question.message) = (translation.asked, message);
        true
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Group commit: who wants the table changed waits in line, and whoever's turn it is takes all of the line along.
//!
//! A write of the table takes up to half a millisecond, and replaces all of it, so one write can carry any number of
//! changes. Each caller puts its work into the line. The first to find nobody at work *leads*: it takes all that is in
//! the line, does it, and hands out the results; then it makes the first of those who came meanwhile the next leader.
//! The others sleep until they have a result or lead. So nobody returns before its work is done, nobody's is done
//! twice, and while the new leader wakes up those just served come back with more.

use std::sync::Arc;

use crate::sync::{Condvar, Mutex};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Line<W, R> {
    /// Held to put in or to take out, and for nothing else.
    queue: Mutex<Queue<W, R>>,
}

#[derive(Debug)]
struct Queue<W, R> {
    waiting: Vec<Arc<Place<W, R>>>,
    /// Somebody leads, or has been told to.
    led: bool,
}

#[derive(Debug)]
struct Place<W, R> {
    work: W,
    turn: Mutex<Turn<R>>,
    changed: Condvar,
}

#[derive(Debug)]
enum Turn<R> {
    Waits,
    Leads,
    Done(R),
    Taken,
}

impl<W, R> Line<W, R> {
    pub fn new() -> Self {
        let queue = Queue { waiting: Vec::new(), led: false };
        Line { queue: Mutex::new(queue) }
    }

    /// Has the work done, by this thread or another, and returns its result. `do_all` is given works in the order in
    /// which they came, and returns a result for each. Never `None`.
    pub fn bring(&self, work: W, do_all: impl FnOnce(&[&W]) -> Vec<R>) -> Option<R> {
        let place =
            Arc::new(Place { work, turn: Mutex::new(Turn::Waits), changed: Condvar::new() });
        let mut queue = self.queue.lock();
        queue.waiting.push(place.clone());
        let leads = !std::mem::replace(&mut queue.led, true);
        drop(queue);
        if !leads {
            let mut turn = place.turn.lock();
            while matches!(*turn, Turn::Waits) {
                turn = place.changed.wait(turn);
            }
            if let Turn::Done(result) = std::mem::replace(&mut *turn, Turn::Taken) {
                return Some(result);
            }
        }
        self.lead(do_all);
        let turn = std::mem::replace(&mut *place.turn.lock(), Turn::Taken);
        match turn {
            Turn::Done(result) => Some(result),
            _ => None,
        }
    }

    fn lead(&self, do_all: impl FnOnce(&[&W]) -> Vec<R>) {
        let served = std::mem::take(&mut self.queue.lock().waiting);
        let works: Vec<&W> = served.iter().map(|place| &place.work).collect();
        for (place, result) in served.iter().zip(do_all(&works)) {
            place.wake(Turn::Done(result));
        }
        let mut queue = self.queue.lock();
        match queue.waiting.first() {
            Some(next) => next.wake(Turn::Leads),
            None => queue.led = false,
        }
    }
}

impl<W, R> Place<W, R> {
    fn wake(&self, turn: Turn<R>) {
        *self.turn.lock() = turn;
        self.changed.notify_one();
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Three threads, each with one piece of work: each gets its own result, and each piece is done once.
    #[test]
    fn everybody_gets_the_result_of_his_own_work() {
        loom::model(|| {
            let shared = Arc::new((Line::<u32, u32>::new(), Mutex::new(Vec::new())));
            let bring = |work: u32, shared: &(Line<u32, u32>, Mutex<Vec<u32>>)| {
                let (line, done) = shared;
                let result = line.bring(work, |works| {
                    done.lock().extend(works.iter().map(|&&work| work));
                    works.iter().map(|work| *work * 10).collect()
                });
                assert_eq!(result, Some(work * 10));
                // Done, and seen to be, when it returns.
                assert!(done.lock().contains(&work));
            };
            let others = [1, 2].map(|work| {
                let shared = shared.clone();
                thread::spawn(move || bring(work, &shared))
            });
            bring(3, &shared);
            others.into_iter().for_each(|other| other.join().unwrap());
            let mut done = shared.1.lock().clone();
            done.sort_unstable();
            assert_eq!(done, [1, 2, 3]);
        });
    }
}

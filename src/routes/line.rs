// SPDX-License-Identifier: MIT OR Apache-2.0
//! Group commit: who wants the table changed waits in line, and whoever's turn it is takes all of the line along.
//!
//! A write of the table takes up to half a millisecond, and replaces all of it, so one write can carry any number of
//! changes. Each caller puts its work into the line, *then* takes the lock under which the table is written. Whoever
//! gets the lock and finds its own work done meanwhile leaves with the result; else it does what is in the line,
//! its own included: work leaves the line only under the lock, together with its result. So nobody returns before its
//! work is done, and nobody's is done twice.

use std::sync::Arc;

use crate::sync::{Mutex, MutexGuard};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Line<W, R> {
    /// Innermost: held to put in or to take out, and for nothing else.
    waiting: Mutex<Vec<Arc<Place<W, R>>>>,
}

#[derive(Debug)]
pub(super) struct Place<W, R> {
    work: W,
    /// Written under the caller's lock.
    result: Mutex<Option<R>>,
}

impl<W, R> Line<W, R> {
    pub fn new() -> Self {
        Line { waiting: Mutex::new(Vec::new()) }
    }

    /// Has the work done under `lock`, by this thread or another, and returns its result. `do_all` is given works in the order in
    /// which they came, and returns a result for each.
    pub fn bring<S>(
        &self,
        lock: &Mutex<S>,
        work: W,
        do_all: impl FnOnce(&mut S, &[&W]) -> Vec<R>,
    ) -> Option<R> {
        let place = Arc::new(Place { work, result: Mutex::new(None) });
        self.waiting.lock().push(place.clone());
        let mut state: MutexGuard<'_, S> = lock.lock();
        if let Some(result) = place.result.lock().take() {
            return Some(result);
        }
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let works: Vec<&W> = waiting.iter().map(|place| &place.work).collect();
        for (other, result) in waiting.iter().zip(do_all(&mut state, &works)) {
            *other.result.lock() = Some(result);
        }
        let result = place.result.lock().take();
        result
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
                let result = line.bring(done, work, |done, works| {
                    done.extend(works.iter().copied());
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Short-lived threads, for many system calls that each wait in the kernel: their waits overlap.

use std::thread;

use parking_lot::Mutex;

use crate::cancel;

/// Room for a function of the VMM's, which may be what the work ends in.
const STACK_SIZE: usize = 256 << 10;

/// Does `work` on each of the items, with up to `threads` threads of which this is one, and returns when all is
/// done. Fewer than `at_least` items are not worth another thread; and where none can be started, this one does it all.
pub(crate) fn share_out<T: Send>(
    items: &mut [T],
    threads: usize,
    at_least: usize,
    work: impl Fn(&mut T) + Sync,
) {
    let helpers = (items.len() / at_least.max(1)).min(threads).saturating_sub(1);
    // Innermost: held to take the next item, and for nothing else.
    let queue = Mutex::new(items.iter_mut());
    let next = || queue.lock().next();
    let run = || {
        while let Some(item) = next() {
            work(item);
        }
    };
    if helpers == 0 {
        return run();
    }
    let share = || {
        thread::scope(|scope| {
            without_signals(|| {
                for _ in 0..helpers {
                    let helper = thread::Builder::new().name("msiroute-unbind".into());
                    if helper.stack_size(STACK_SIZE).spawn_scoped(scope, run).is_err() {
                        break;
                    }
                }
            });
            run();
        })
    };
    cancel::put_off(share);
}

/// Threads that `start` makes handle no signals: those are the VMM's.
fn without_signals(start: impl FnOnce()) {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are ours, and filled by these calls; they change the calling thread's mask alone.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    start();
    // SAFETY: as above; `before` was filled in.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_item_is_done_once_whatever_the_number_of_threads() {
        for (items, threads) in [(0, 8), (1, 8), (15, 8), (1000, 1), (1000, 8)] {
            let mut counts = vec![0; items];
            share_out(&mut counts, threads, 16, |count| *count += 1);
            assert!(counts.iter().all(|&count| count == 1), "{items} by {threads}");
        }
    }

    #[test]
    fn helpers_wait_at_the_same_time() {
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        share_out(&mut [(); 64], 4, 16, |()| {
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(std::time::Duration::from_millis(5));
            inside.fetch_sub(1, Ordering::SeqCst);
        });
        assert_eq!(most.load(Ordering::SeqCst), 4);
    }
}

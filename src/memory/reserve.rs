// SPDX-License-Identifier: MIT OR Apache-2.0
//! Out of memory is an error, and not the end of the VMM, where something is made.
//!
//! Rust's collections allocate what they must, or abort. So a call that makes something first sets memory aside, enough for
//! its small pieces, and is refused if it cannot; while it runs, they come from there when malloc has no more. What was set aside
//! and not needed is kept for the next such call.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use parking_lot::{const_mutex, Mutex};

/// How many blocks of which size. With half of them `c-tests/memory.c` passes, with a quarter it does not.
const BLOCKS: [(usize, usize); 4] = [(32, 64), (16, 256), (6, 1024), (2, 4096)];
const ALL: usize = BLOCKS[0].0 + BLOCKS[1].0 + BLOCKS[2].0 + BLOCKS[3].0;
/// Of the large ones: what is aligned to cache lines is not small.
const ALIGN: usize = 128;

struct Reserve {
    blocks: [Cell<*mut u8>; ALL],
    is_full: Cell<bool>,
}

// SAFETY: the blocks are its own, and any thread may free them.
unsafe impl Send for Reserve {}

/// Full, and nobody's now. Nothing is locked under it.
static SPARE: Mutex<Option<Reserve>> = const_mutex(None);

thread_local! {
    static RESERVE: Cell<*const Reserve> = const { Cell::new(std::ptr::null()) };
}

/// The sizes of the blocks, in their order.
fn layouts() -> impl Iterator<Item = Layout> {
    let sizes = BLOCKS.iter().flat_map(|&(n, size)| std::iter::repeat_n(size, n));
    sizes
        .filter_map(|size| Layout::from_size_align(size, if size < 1024 { 16 } else { ALIGN }).ok())
}

impl Reserve {
    /// `None` if there is not memory enough.
    fn get() -> Option<Self> {
        let spare = SPARE.lock().take();
        let reserve = spare.unwrap_or(Reserve {
            blocks: [const { Cell::new(std::ptr::null_mut()) }; ALL],
            is_full: Cell::new(false),
        });
        reserve.fill().then_some(reserve)
    }

    fn fill(&self) -> bool {
        if self.is_full.get() {
            return true;
        }
        for (block, layout) in self.blocks.iter().zip(layouts()) {
            if block.get().is_null() {
                // SAFETY: no layout is of size 0.
                block.set(unsafe { System.alloc(layout) });
            }
            if block.get().is_null() {
                return false;
            }
        }
        self.is_full.set(true);
        true
    }

    fn put_back(self) {
        if self.is_full.get() {
            let before = SPARE.lock().replace(self);
            drop(before);
        }
    }

    /// The smallest block that is large enough.
    fn take(&self, wanted: Layout) -> *mut u8 {
        let fits =
            |layout: &Layout| layout.size() >= wanted.size() && layout.align() >= wanted.align();
        let mut blocks = self.blocks.iter().zip(layouts());
        let found = blocks.find(|(block, layout)| fits(layout) && !block.get().is_null());
        self.is_full.set(false);
        found.map_or(std::ptr::null_mut(), |(block, _)| block.replace(std::ptr::null_mut()))
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        for (block, layout) in
            self.blocks.iter().zip(layouts()).filter(|(block, _)| !block.get().is_null())
        {
            // SAFETY: allocated so, and not taken.
            unsafe { System.dealloc(block.get(), layout) };
        }
    }
}

/// Whether there is as much memory now.
pub(crate) fn is_there() -> bool {
    Reserve::get().map(Reserve::put_back).is_some()
}

/// Small pieces that `body` wants come from memory set aside if there is no other. `None` if there is not enough to set aside.
pub(crate) fn with_reserve<T>(body: impl FnOnce() -> T) -> Option<T> {
    let reserve = Reserve::get()?;
    // Called from a function of the VMM's inside such a call, it has its own.
    let before = RESERVE.replace(&raw const reserve);
    let result = body();
    RESERVE.set(before);
    reserve.put_back();
    Some(result)
}

/// For what may fail: it leaves the reserve to what may not.
pub(super) fn without<T>(body: impl FnOnce() -> T) -> T {
    let before = RESERVE.replace(std::ptr::null());
    let result = body();
    RESERVE.set(before);
    result
}

struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Also called while a thread ends; there is no reserve then.
#[cold]
fn from_reserve(layout: Layout) -> *mut u8 {
    let reserve = RESERVE.try_with(Cell::get).unwrap_or(std::ptr::null());
    // SAFETY: set only while it lives, and by this thread.
    match unsafe { reserve.as_ref() } {
        Some(reserve) => reserve.take(layout),
        None => std::ptr::null_mut(),
    }
}

// SAFETY: what it gives comes from `System`, which takes it back by its address alone, whatever the size: by free(3).
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised to us.
        let block = unsafe { System.alloc(layout) };
        if block.is_null() {
            return from_reserve(layout);
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised to us.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null() {
            return block;
        }
        let block = from_reserve(layout);
        if !block.is_null() {
            // SAFETY: as long as that, at least.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as promised to us.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as promised to us.
        let moved = unsafe { System.realloc(block, layout, size) };
        if !moved.is_null() {
            return moved;
        }
        // SAFETY: `size` makes a layout of the same alignment, as promised to us.
        let moved =
            from_reserve(unsafe { Layout::from_size_align_unchecked(size, layout.align()) });
        if !moved.is_null() {
            // SAFETY: both are as long as the shorter; the old one is given up.
            unsafe {
                block.copy_to_nonoverlapping(moved, layout.size().min(size));
                System.dealloc(block, layout);
            }
        }
        moved
    }
}

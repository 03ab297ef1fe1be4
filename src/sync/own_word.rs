// SPDX-License-Identifier: MIT OR Apache-2.0
//! A word of each thread's own that is read in two instructions. At first it is 0.
//!
//! A `thread_local` of a shared library is found by a call (`__tls_get_addr`), which is a third of what a delivery does in user
//! space. At a fixed distance from the thread's pointer (the ELF "initial-exec" model) it costs a load more than a plain word;
//! Rust has no stable way to ask for that model, so the word is assembly's. The price: where the library is loaded late
//! (dlopen) all its thread-local data, 300 bytes, must fit into the room that the dynamic linker keeps for such libraries
//! (glibc: 1,600 bytes).

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
mod word {
    use std::arch::{asm, global_asm};

    global_asm!(
        ".pushsection .tbss.msiroute_own_word, \"awT\", @nobits",
        ".globl msiroute_own_word",
        ".hidden msiroute_own_word",
        ".type msiroute_own_word, @tls_object",
        ".size msiroute_own_word, 8",
        ".balign 8",
        "msiroute_own_word:",
        ".zero 8",
        ".popsection",
    );

    #[inline(always)]
    pub fn get() -> usize {
        let word: usize;
        // SAFETY: reads this thread's word, which lies where the dynamic linker says. Nobody else reads or writes it.
        unsafe {
            asm!(
                "mov {word}, qword ptr [rip + msiroute_own_word@GOTTPOFF]",
                "mov {word}, qword ptr fs:[{word}]",
                word = out(reg) word,
                options(readonly, nostack, preserves_flags),
            );
        }
        word
    }

    pub fn set(word: usize) {
        // SAFETY: as above, written.
        unsafe {
            asm!(
                "mov {at}, qword ptr [rip + msiroute_own_word@GOTTPOFF]",
                "mov qword ptr fs:[{at}], {word}",
                at = out(reg) _,
                word = in(reg) word,
                options(nostack, preserves_flags),
            );
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
mod word {
    use std::cell::Cell;

    thread_local!(static WORD: Cell<usize> = const { Cell::new(0) });

    #[inline(always)]
    pub fn get() -> usize {
        WORD.with(Cell::get)
    }

    pub fn set(word: usize) {
        WORD.with(|it| it.set(word));
    }
}

pub(super) use word::{get, set};

#[cfg(test)]
mod tests {
    #[test]
    fn each_thread_has_its_own() {
        assert_eq!(super::get(), 0);
        super::set(1);
        std::thread::spawn(|| {
            assert_eq!(super::get(), 0);
            super::set(2);
            assert_eq!(super::get(), 2);
        })
        .join()
        .unwrap();
        assert_eq!(super::get(), 1);
        super::set(0);
    }
}

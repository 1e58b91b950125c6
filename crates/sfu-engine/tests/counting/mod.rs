// SPDX-License-Identifier: MPL-2.0

//! Counts what the thread takes from the allocator. Rust's does not see what C libraries take, so it is `malloc` itself.

use std::cell::Cell;
use std::ffi::{c_int, c_void};

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(memory: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(alignment: usize, size: usize) -> *mut c_void;
    fn __libc_free(memory: *mut c_void);
    fn malloc_usable_size(memory: *mut c_void) -> usize;
}

fn count(size: usize) {
    CALLS.set(CALLS.get() + 1);
    BYTES.set(BYTES.get() + size);
}

/// What there is of an allocation, with the room that the allocator adds.
fn live(memory: *mut c_void) -> isize {
    // SAFETY: memory of this allocator, or null, for which it is 0.
    unsafe { malloc_usable_size(memory) as isize }
}

fn taken_in(memory: *mut c_void) -> *mut c_void {
    LIVE.set(LIVE.get() + live(memory));
    memory
}

/// # Safety
/// As that of the C library, to which it hands on.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    count(size);
    // SAFETY: the same call, in the allocator whose `free` is called.
    taken_in(unsafe { __libc_malloc(size) })
}

/// # Safety
/// As that of the C library, to which it hands on.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn free(memory: *mut c_void) {
    LIVE.set(LIVE.get() - live(memory));
    // SAFETY: the same call, in the allocator that gave the memory.
    unsafe { __libc_free(memory) }
}

/// # Safety
/// As that of the C library, to which it hands on.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn calloc(number: usize, size: usize) -> *mut c_void {
    count(number.saturating_mul(size));
    // SAFETY: the same call, in the allocator whose `free` is called.
    taken_in(unsafe { __libc_calloc(number, size) })
}

/// # Safety
/// As that of the C library, to which it hands on.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn realloc(memory: *mut c_void, size: usize) -> *mut c_void {
    count(size);
    LIVE.set(LIVE.get() - live(memory));
    // SAFETY: the same call, in the allocator that gave the memory.
    taken_in(unsafe { __libc_realloc(memory, size) })
}

/// # Safety
/// As that of the C library.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn posix_memalign(
    out: *mut *mut c_void,
    alignment: usize,
    size: usize,
) -> c_int {
    const ENOMEM: c_int = 12;
    count(size);
    // SAFETY: an allocation whose `free` is called, and a place that the caller owns.
    unsafe {
        let memory = __libc_memalign(alignment, size);
        if memory.is_null() {
            return ENOMEM;
        }
        out.write(taken_in(memory));
    }
    0
}

/// Calls to the allocator on this thread so far.
#[allow(dead_code)]
pub(crate) fn calls() -> usize {
    CALLS.get()
}

/// Bytes that the thread has taken and nobody has given back on it.
#[allow(dead_code)]
pub(crate) fn held() -> isize {
    LIVE.get()
}

/// Calls to the allocator and bytes asked for while `work` ran.
#[allow(dead_code)]
pub(crate) fn taken<T>(work: impl FnOnce() -> T) -> (usize, usize, T) {
    let (calls, bytes) = (CALLS.get(), BYTES.get());
    let made = work();
    (CALLS.get() - calls, BYTES.get() - bytes, made)
}

//! What the C library's allocator keeps of memory that is not used any more.
//!
//! Left to itself it has eight arenas for each processor, each of which keeps what it once needed; and once a block of some
//! mebibytes has been freed, blocks of that size are taken from the arenas too. A node moves files in such blocks on hundreds of
//! threads: some thousand short files and one of 300 MiB left it with 330 MiB, and now with 130.

/// Arenas that threads share.
#[cfg(target_env = "gnu")]
const ARENAS: i32 = 4;
/// A block of so many bytes is given back to the system when it is freed, ...
#[cfg(target_env = "gnu")]
const LARGE: i32 = 512 << 10;
/// ... and so is what is free at the end of an arena, if it is this much.
#[cfg(target_env = "gnu")]
const SPARE: i32 = 256 << 10;

/// Bounds it. To be called while there is one thread.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the allocator is told by a function of C")]
pub fn bound() {
    for (what, value) in
        [(libc::M_ARENA_MAX, ARENAS), (libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, SPARE)]
    {
        // SAFETY: it takes two numbers, and no other thread allocates meanwhile. It says whether it knows what is meant; if
        // not, more is kept than need be.
        unsafe { libc::mallopt(what, value) };
    }
}

/// Other C libraries keep little.
#[cfg(not(target_env = "gnu"))]
pub fn bound() {}

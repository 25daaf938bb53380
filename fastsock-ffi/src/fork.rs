//! Whether this process is a fork of the one that started the bridge: asked by each call, so it must cost next to nothing.

use rustix::process::{Pid, getpid};

/// Knows the process that made it.
#[derive(Debug)]
pub(crate) struct Birthplace {
    page: Option<Page>,
    process: Pid,
}

impl Birthplace {
    /// This process.
    pub(crate) fn new() -> Self {
        Self {
            page: Page::new(),
            process: getpid(),
        }
    }

    /// Whether this is still that process. Without a system call where the system can wipe a page at a fork.
    pub(crate) fn is_here(&self) -> bool {
        match &self.page {
            Some(page) => !page.is_wiped(),
            None => getpid() == self.process,
        }
    }
}

#[cfg(target_os = "linux")]
use linux::Page;

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        ptr::{self, NonNull},
        sync::atomic::{AtomicU32, Ordering::Relaxed},
    };

    /// A page that is zero in every child (MADV_WIPEONFORK, Linux 4.14): a getpid, which glibc does not remember, costs as much as a
    /// read of the event descriptor.
    #[derive(Debug)]
    pub(super) struct Page(NonNull<AtomicU32>);

    // SAFETY: an atomic number in memory that only the drop unmaps.
    unsafe impl Send for Page {}
    // SAFETY: as above.
    unsafe impl Sync for Page {}

    impl Page {
        /// `None` where the system cannot do it.
        pub(super) fn new() -> Option<Self> {
            // SAFETY: a new private mapping, at a place that the system chooses.
            let page = unsafe {
                libc::mmap(
                    ptr::null_mut(),
                    BYTES,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            if page == libc::MAP_FAILED {
                return None;
            }
            let this = Self(NonNull::new(page.cast())?);
            // SAFETY: the mapping that was just made.
            let advise = |advice| unsafe { libc::madvise(page, BYTES, advice) == 0 };
            // qemu-user takes any advice, and follows none.
            if advise(NO_ADVICE) || !advise(libc::MADV_WIPEONFORK) {
                return None;
            }
            this.mark().store(1, Relaxed);
            Some(this)
        }

        pub(super) fn is_wiped(&self) -> bool {
            self.mark().load(Relaxed) == 0
        }

        fn mark(&self) -> &AtomicU32 {
            // SAFETY: mapped and aligned while `self` lives; all zeros is a value.
            unsafe { self.0.as_ref() }
        }
    }

    impl Drop for Page {
        fn drop(&mut self) {
            // SAFETY: it was mapped with this length, and nobody has it any more.
            unsafe { libc::munmap(self.0.as_ptr().cast(), BYTES) };
        }
    }

    /// What no system knows.
    const NO_ADVICE: libc::c_int = 0x7fff;
    /// One number; the system gives it a page.
    const BYTES: usize = size_of::<AtomicU32>();

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_child_finds_it_wiped() {
            let page = Page::new().unwrap();
            assert!(!page.is_wiped());
            // SAFETY: the child only reads a number and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: nothing of the parent runs in the child.
                unsafe { libc::_exit(i32::from(page.is_wiped())) };
            }
            let mut status = 0;
            // SAFETY: a place for one number.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(libc::WEXITSTATUS(status), 1);
            assert!(!page.is_wiped());
        }
    }
}

/// There is none elsewhere.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
struct Page;

#[cfg(not(target_os = "linux"))]
impl Page {
    fn new() -> Option<Self> {
        None
    }

    fn is_wiped(&self) -> bool {
        false
    }
}

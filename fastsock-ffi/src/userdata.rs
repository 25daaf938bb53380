//! The host's pointer: handed to its callbacks, and freed once.

use std::{ffi::c_void, ptr};

use crate::guard::{Inside, Mark};

/// The host's pointer, and its promise to be freed once.
#[derive(Debug)]
pub(crate) struct Userdata {
    pub(crate) pointer: *mut c_void,
    pub(crate) free: Option<unsafe extern "C" fn(*mut c_void)>,
}

// SAFETY: the pointer is only handed back to the host, whose callbacks are documented to be called on our threads.
unsafe impl Send for Userdata {}
// SAFETY: as above.
unsafe impl Sync for Userdata {}

impl Userdata {
    pub(crate) fn none() -> Self {
        Self {
            pointer: ptr::null_mut(),
            free: None,
        }
    }

    pub(crate) fn pointer(&self) -> *mut c_void {
        self.pointer
    }
}

impl Drop for Userdata {
    fn drop(&mut self) {
        let Some(free) = self.free else { return };
        let _mark = Mark::set(Inside::Callback);
        // SAFETY: the host gave both for this; a drop happens once.
        unsafe { free(self.pointer) };
    }
}

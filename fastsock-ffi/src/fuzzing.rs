//! The C entry points with the arguments of a careless host: a program of calls is read from bytes.
//!
//! Not part of the ABI: here only with the feature `fuzzing`, for the target in `fuzz/`, and in the crate's own tests.
//! What the contract leaves to the host is kept (a pointer has as many bytes as are claimed, text ends with NUL);
//! everything else may come.

use std::{
    ffi::{CStr, CString, c_char, c_void},
    mem::{offset_of, size_of},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use crate::*;

/// Each call ends with a status that is one, never PANIC; a failure says in one line why and writes no result; and the
/// userdata is freed once.
pub fn c_calls(bytes: &[u8]) {
    let mut program = Program(bytes);
    let mut config = ptr::null_mut();
    // SAFETY: a place for one pointer.
    assert_eq!(
        unsafe { fastsock_config_new(&mut config) },
        fastsock_status::OK
    );
    for _ in 0..CALLS {
        if program.0.is_empty() {
            break;
        }
        // SAFETY: it came from `fastsock_config_new` and is not freed yet.
        unsafe { program.call(config) };
    }
    // SAFETY: the last use of it.
    assert_eq!(unsafe { fastsock_config_free(config) }, fastsock_status::OK);
}

/// What is left of the bytes.
struct Program<'a>(&'a [u8]);

/// Bytes in a place of their own, so that a sanitizer sees a read past their end.
struct Bytes {
    bytes: Option<Box<[u8]>>,
    len: usize,
}

impl Bytes {
    fn ptr<T>(&self) -> *const T {
        self.bytes
            .as_ref()
            .map_or(ptr::null(), |bytes| bytes.as_ptr().cast())
    }
}

impl<'a> Program<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u32 {
        self.take(4)
            .iter()
            .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
    }

    /// Up to 254 bytes; 255 is NULL with any length.
    fn bytes(&mut self) -> Bytes {
        match self.byte() {
            255 => Bytes {
                bytes: None,
                len: usize::from(self.byte()),
            },
            // More than an object can have: refused before a byte is read.
            254 => Bytes {
                bytes: Some(Box::new([0])),
                len: usize::MAX - usize::from(self.byte()),
            },
            len => {
                let bytes = self.take(len.into());
                Bytes {
                    bytes: Some(bytes.into()),
                    len: bytes.len(),
                }
            }
        }
    }

    /// The same with a NUL at its end; `None` is NULL.
    fn text(&mut self) -> Option<CString> {
        let len = self.byte();
        let bytes = (len != 255).then(|| self.take(len.into()))?;
        let end = bytes.iter().position(|byte| *byte == 0);
        CString::new(&bytes[..end.unwrap_or(bytes.len())]).ok()
    }

    /// The name of a setting, mostly.
    fn name(&mut self) -> Option<CString> {
        let settings = fastsock::Config::settings();
        match self.byte() {
            index @ ..200 => CString::new(settings[usize::from(index) % settings.len()].name).ok(),
            _ => self.text(),
        }
    }

    /// One call.
    ///
    /// # Safety
    /// `config` is alive.
    unsafe fn call(&mut self, config: *mut fastsock_config) {
        // SAFETY: by contract; nothing else holds it during the call.
        let config = unsafe { config.as_mut() }.filter(|_| self.0[0] < 128);
        let bridge = Some(bridge()).filter(|_| self.0[0] < 128);
        match self.byte() % 32 {
            0 => {
                let (name, value) = (self.name(), self.text());
                // SAFETY: NULL or NUL-terminated.
                check(unsafe { fastsock_config_set(config, start(&name), start(&value)) });
            }
            1 => {
                let json = self.text();
                // SAFETY: NULL or NUL-terminated.
                check(unsafe { fastsock_config_merge_json(config, start(&json)) });
            }
            2 => {
                let name = self.name();
                result(|out| {
                    // SAFETY: NULL or NUL-terminated, and a place for one pointer or NULL.
                    unsafe { fastsock_config_show(config.as_deref(), start(&name), out) }
                });
            }
            3 => self.start(config),
            4 => {
                let (id, kind, data) = (self.bytes(), self.number() % 4, self.bytes());
                let mut sent = fastsock_sent::HERE;
                // SAFETY: as many bytes as are claimed.
                let status = unsafe {
                    fastsock_bridge_send(
                        bridge,
                        id.ptr(),
                        id.len,
                        kind,
                        data.ptr(),
                        data.len,
                        &mut sent,
                    )
                };
                check(status);
                assert!(status != fastsock_status::OK || sent == fastsock_sent::OFFLINE);
            }
            5 => {
                let (id, code, reason) = (self.bytes(), self.number() % 6000, self.bytes());
                // SAFETY: as many bytes as are claimed.
                check(unsafe {
                    fastsock_bridge_disconnect(
                        bridge,
                        id.ptr(),
                        id.len,
                        code,
                        reason.ptr(),
                        reason.len,
                    )
                });
            }
            6 => {
                let size = self.number() as usize % 5000;
                let mut stats = vec![0xaau8; size.max(1)];
                // SAFETY: as many bytes as are claimed.
                let status =
                    unsafe { fastsock_bridge_stats(bridge, stats.as_mut_ptr().cast(), size) };
                check(status);
                assert!(status == fastsock_status::OK || stats.iter().all(|byte| *byte == 0xaa));
            }
            7 => {
                let (size, max) = (self.number() as usize % 5000, usize::from(self.byte()));
                let mut events = vec![0u8; size * max];
                let mut count = usize::MAX;
                // SAFETY: room for as many events of that size.
                let status = unsafe {
                    fastsock_bridge_poll(bridge, events.as_mut_ptr().cast(), size, max, &mut count)
                };
                check(status);
                assert!(count <= max || (status != fastsock_status::OK && count == usize::MAX));
            }
            8 => {
                let (ticket, id) = (self.number().into(), self.bytes());
                // SAFETY: as many bytes as are claimed.
                check(unsafe { fastsock_bridge_resolve_accept(bridge, ticket, id.ptr(), id.len) });
            }
            9 => {
                let (ticket, status, reason) =
                    (self.number().into(), self.number() % 1000, self.bytes());
                let seconds = self.number();
                // SAFETY: as many bytes as are claimed.
                check(unsafe {
                    fastsock_bridge_resolve_reject(
                        bridge,
                        ticket,
                        status,
                        reason.ptr(),
                        reason.len,
                        seconds,
                    )
                });
            }
            10 => {
                let (ticket, kind, data) = (self.number().into(), self.number() % 4, self.bytes());
                // SAFETY: as many bytes as are claimed.
                check(unsafe {
                    fastsock_bridge_resolve_replace(bridge, ticket, kind, data.ptr(), data.len)
                });
            }
            11 => {
                let (ticket, kind, data) = (self.number().into(), self.number(), self.bytes());
                // SAFETY: as many bytes as are claimed.
                check(unsafe {
                    fastsock_bridge_resolve_reply(bridge, ticket, kind, data.ptr(), data.len)
                });
            }
            12 => {
                // SAFETY: no pointer but the bridge.
                check(unsafe { fastsock_bridge_resolve_forward(bridge, u64::from(self.number())) });
            }
            // SAFETY: a place for one pointer, or NULL.
            13 => result(|out| unsafe { fastsock_bridge_local_addr(bridge, out) }),
            // SAFETY: a place for one pointer, or NULL.
            14 => result(|out| unsafe { fastsock_bridge_stats_json(bridge, out) }),
            15 => {
                // SAFETY: any number may come; the text is static.
                let name = unsafe { CStr::from_ptr(fastsock_status_name(self.number())) };
                assert!(!name.is_empty());
            }
            16 => {
                let mut left = [0u8; 16];
                let bridge_mut = bridge.map_or(ptr::null_mut(), |b| ptr::from_ref(b).cast_mut());
                let size = self.number() as usize % 16; // too little: it must not stop
                // SAFETY: as many bytes as are claimed.
                let status =
                    unsafe { fastsock_bridge_stop(bridge_mut, 0, left.as_mut_ptr().cast(), size) };
                assert_ne!(status, fastsock_status::OK);
                check(status);
            }
            // SAFETY: NULL is nothing to free.
            17 => check(unsafe { fastsock_config_free(ptr::null_mut()) }),
            // SAFETY: NULL is nothing to free.
            18 => check(unsafe { fastsock_bridge_free(ptr::null_mut()) }),
            19 => {
                // SAFETY: NULL is refused.
                let status = unsafe { fastsock_bridge_clients(bridge, ptr::null_mut()) };
                assert_eq!(status, fastsock_status::NULL);
            }
            20 => {
                let (id, kind, data) = (self.bytes(), self.number() % 4, self.bytes());
                let mut sent = fastsock_sent::KEPT;
                // SAFETY: as many bytes as are claimed.
                let status = unsafe {
                    fastsock_bridge_send_nowait(
                        bridge,
                        id.ptr(),
                        id.len,
                        kind,
                        data.ptr(),
                        data.len,
                        u64::from(self.number()),
                        &mut sent,
                    )
                };
                check(status); // BUSY, after a while: nobody polls
                let is_written = sent == fastsock_sent::PENDING;
                assert_eq!(status == fastsock_status::OK, is_written);
            }
            _ => {}
        }
    }

    /// Options of any size with any numbers. The configuration is never one that starts, so nothing is left running.
    fn start(&mut self, config: Option<&mut fastsock_config>) {
        let given = self.number() as usize % 5000;
        let mut memory = vec![0u64; given.max(size_of::<usize>()).div_ceil(8)];
        let at = memory.as_mut_ptr().cast::<u8>();
        let write = |offset: usize, bytes: &[u8]| {
            if offset + bytes.len() <= given.max(size_of::<usize>()) {
                // SAFETY: within the memory.
                unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at.add(offset), bytes.len()) };
            }
        };
        // Whatever lies where there is no pointer.
        let numbers = [
            offset_of!(fastsock_options, delivery),
            offset_of!(fastsock_options, workers),
            offset_of!(fastsock_options, log_level),
            offset_of!(fastsock_options, event_authenticate),
            offset_of!(fastsock_options, event_uplinks),
            offset_of!(fastsock_options, reserved),
            offset_of!(fastsock_options, event_capacity),
            offset_of!(fastsock_options, event_capacity_bytes),
            size_of::<fastsock_options>(), // of a newer version
        ];
        for offset in numbers {
            if self.byte() & 3 == 0 {
                write(offset, &[self.byte(), 0, 0, 0]);
            }
        }
        let free: unsafe extern "C" fn(*mut c_void) = free;
        let freed = AtomicUsize::new(0);
        write(
            offset_of!(fastsock_options, userdata),
            &(&raw const freed as usize).to_ne_bytes(),
        );
        write(
            offset_of!(fastsock_options, userdata_free),
            &(free as usize).to_ne_bytes(),
        );
        write(0, &given.to_ne_bytes());
        let mut config = config.map(|config| fastsock_config {
            inner: config.inner.clone(),
        });
        if let Some(config) = &mut config {
            config.inner.redis.port = 0; // is not allowed
        }
        let mut bridge = ptr::dangling_mut();
        // SAFETY: the options have as many bytes as they claim.
        let status = unsafe { fastsock_bridge_start(config.as_ref(), at.cast(), &mut bridge) };
        assert_ne!(status, fastsock_status::OK);
        assert_eq!(bridge, ptr::dangling_mut());
        check(status);
        let knows_userdata = given >= offset_of!(fastsock_options, delivery) && given <= 4096;
        assert_eq!(freed.load(SeqCst), usize::from(knows_userdata));
    }
}

unsafe extern "C" fn free(userdata: *mut c_void) {
    // SAFETY: the counter of the call that is running.
    unsafe { &*userdata.cast::<AtomicUsize>() }.fetch_add(1, SeqCst);
}

fn start(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(ptr::null(), |text| text.as_ptr())
}

/// A call that gives a text: NULL is refused, and a failure writes nothing.
fn result(mut call: impl FnMut(*mut *mut c_char) -> fastsock_status) {
    assert_ne!(call(ptr::null_mut()), fastsock_status::OK);
    let mut text = ptr::dangling_mut();
    let status = call(&mut text);
    check(status);
    match status {
        // SAFETY: it was written, and is freed once.
        fastsock_status::OK => check(unsafe { fastsock_string_free(text) }),
        _ => assert_eq!(text, ptr::dangling_mut()),
    }
}

fn check(status: fastsock_status) {
    if status == fastsock_status::OK {
        return;
    }
    // SAFETY: a call of this thread has failed, so there is a line.
    let line = unsafe { CStr::from_ptr(fastsock_last_error()) };
    let line = line.to_str().expect("UTF-8");
    assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
    assert_ne!(status, fastsock_status::PANIC, "{line}");
}

/// One bridge for all programs, polled by nobody but them.
fn bridge() -> &'static fastsock_bridge {
    static BRIDGE: OnceLock<&fastsock_bridge> = OnceLock::new();
    BRIDGE.get_or_init(|| {
        let mut config = fastsock::Config::default();
        config.listen.port = 0;
        config.listen.addr = Some(std::net::Ipv4Addr::LOCALHOST.into());
        let config = fastsock_config { inner: config };
        // SAFETY: all zeros is a value of every field.
        let mut options: fastsock_options = unsafe { std::mem::zeroed() };
        options.struct_size = size_of::<fastsock_options>();
        options.delivery = fastsock_delivery::EVENTS as u32;
        let mut bridge = ptr::null_mut();
        // SAFETY: whole options, and a place for one pointer.
        let status = unsafe { fastsock_bridge_start(Some(&config), &options, &mut bridge) };
        assert_eq!(status, fastsock_status::OK);
        // SAFETY: it is never freed.
        unsafe { &*bridge }
    })
}

/// Calls in one program.
const CALLS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, test_runner::Config};

    use super::*;

    #[test]
    fn the_corpus_keeps_every_promise() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/c_calls");
        let mut count = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            c_calls(&std::fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0);
    }

    proptest! {
        #![proptest_config(Config { cases: 500, failure_persistence: None, ..Config::default() })]

        #[test]
        fn any_program_keeps_every_promise(bytes in vec(prop_oneof![any::<u8>(), 0u8..32], 0..300)) {
            c_calls(&bytes);
        }
    }
}

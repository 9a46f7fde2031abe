//! The system calls of this folder that have no safe binding, each behind a safe function: signal
//! dispositions, fork(2) and the end of its child, memory shared with it, the environment.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU16, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::ForkResult;
use rustix::mm::{MapFlags, ProtFlags};

use crate::heartbeat::Heartbeat;

/// The kernel's action for a signal (sigaction(2)). There is none that runs code of a caller's choice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disposition(SigAction);

impl Disposition {
    /// SIG_DFL.
    pub(super) fn default_action() -> Self {
        Self::of(SigHandler::SigDfl)
    }

    /// SIG_IGN.
    pub(super) fn ignored() -> Self {
        Self::of(SigHandler::SigIgn)
    }

    /// The signal's number is stored, see [`noted`].
    pub(super) fn noted() -> Self {
        Self::of(SigHandler::Handler(note))
    }

    fn of(handler: SigHandler) -> Self {
        Self(SigAction::new(handler, SaFlags::empty(), SigSet::empty()))
    }

    /// Whether this is SIG_IGN.
    pub(super) fn is_ignored(&self) -> bool {
        matches!(self.0.handler(), SigHandler::SigIgn)
    }
}

/// Sets the disposition of `signal` and returns the former one.
pub(super) fn set_disposition(signal: Signal, new: &Disposition) -> nix::Result<Disposition> {
    // SAFETY: a `Disposition` is SIG_DFL, SIG_IGN, `note`, which only stores to an atomic
    // (signal-safety(7)), or one that was in force before.
    #[allow(unsafe_code)]
    unsafe { sigaction(signal, &new.0) }.map(Disposition)
}

/// Whether `signal` is ignored now.
pub(super) fn is_ignored(signal: Signal) -> bool {
    let mut action = std::mem::MaybeUninit::<nix::libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only fills in the present one; all zeros is a valid one.
    #[allow(unsafe_code)]
    let action = unsafe {
        nix::libc::sigaction(signal as i32, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == nix::libc::SIG_IGN
}

static NOTED: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: i32) {
    NOTED.store(signal, Ordering::Relaxed);
}

/// The number of the last signal that arrived under [`Disposition::noted`] since [`forget_noted`].
pub(super) fn noted() -> Option<i32> {
    Some(NOTED.load(Ordering::Relaxed)).filter(|&signal| signal != 0)
}

/// Forgets the signal that [`noted`] returns.
pub(super) fn forget_noted() {
    NOTED.store(0, Ordering::Relaxed);
}

/// fork(2). The calling process must have one thread: with more, the child could wait for ever for a
/// lock that a thread held which the child does not have.
pub(super) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: this process has one thread, so the child may do all that the parent may.
    #[allow(unsafe_code)]
    unsafe {
        nix::unistd::fork()
    }
}

/// Ends a forked child at once. Nothing that the parent set up for its own exit runs, no destructor and
/// no writing of buffers.
pub(super) fn exit_child(status: i32) -> ! {
    // SAFETY: the process ends, so nothing of it can be used afterwards.
    #[allow(unsafe_code)]
    unsafe {
        nix::libc::_exit(status)
    }
}

/// Closes all descriptors but 0, 1, 2 and those in `keep`. For a process that was forked for its own
/// work and never returns to code that holds one of the other descriptors.
pub(super) fn close_all_but(keep: &[BorrowedFd<'_>]) {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > first {
            // SAFETY: nobody in this process uses one of these descriptors any more, see above.
            #[allow(unsafe_code)]
            let _ = unsafe { nix::libc::close_range(first, fd - 1, 0) };
        }
        first = fd.saturating_add(1);
    }
}

/// The environment as the kernel handed it over: entries that are not UTF-8, have no `=` or come
/// twice are kept, which `std::env` does not do.
pub fn environment() -> Vec<CString> {
    #[allow(unsafe_code)]
    unsafe extern "C" {
        static environ: *const *const std::ffi::c_char;
    }
    let mut entries = Vec::new();
    // SAFETY: `environ` is null or points to a null-terminated array of C strings (environ(7)); this
    // program never changes it.
    #[allow(unsafe_code)]
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            entries.push(CStr::from_ptr(*entry).to_owned());
            entry = entry.add(1);
        }
    }
    entries
}

/// Makes the C library look host names up in /etc/hosts and by DNS, whatever nsswitch.conf(5) says: other ways are
/// modules that a static program cannot load. To be called before the first look-up.
pub fn look_names_up_by_files_and_dns() {
    #[allow(unsafe_code)]
    unsafe extern "C" {
        // Of the GNU C library (nss.h).
        fn __nss_configure_lookup(
            database: *const std::ffi::c_char,
            services: *const std::ffi::c_char,
        ) -> std::ffi::c_int;
    }
    // SAFETY: two C strings, which it copies.
    #[allow(unsafe_code)]
    let _ = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
}

/// The memory that a step's parent and its child share. Zero bytes are a valid one, and all of it is atomic: the
/// mapping below depends on both.
pub(super) struct StepMemory {
    pub(super) heart: Heartbeat,
    /// One more than the status that the step returned; 0 before.
    pub(super) status: AtomicU16,
}

impl StepMemory {
    pub(super) fn status(&self) -> Option<u8> {
        self.status.load(Ordering::Acquire).checked_sub(1)?.try_into().ok()
    }
}

/// A [`StepMemory`] that fork(2) does not copy.
pub(super) struct SharedMemory(NonNull<StepMemory>);

impl SharedMemory {
    pub(super) fn new() -> Result<Self, rustix::io::Errno> {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at a place of the kernel's choice.
        #[allow(unsafe_code)]
        let memory = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), size_of::<StepMemory>(), prot, flags)?
        };
        NonNull::new(memory.cast()).map(Self).ok_or(rustix::io::Errno::NOMEM)
    }

    pub(super) fn get(&self) -> &StepMemory {
        // SAFETY: the mapping is page-aligned, large enough and there until this is dropped; it began
        // as zero bytes, which is a valid value; all of it is atomic, so both sides may use it.
        #[allow(unsafe_code)]
        unsafe {
            self.0.as_ref()
        }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own, and no reference to it outlives it.
        #[allow(unsafe_code)]
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), size_of::<StepMemory>()) };
    }
}

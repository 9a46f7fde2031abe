//! What a program has taken: memory and processor time.

use std::io::{Read as _, Seek as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus, Output};
use std::ptr::null_mut;
use std::time::Duration;

use nix::libc::{
    __WALL, __WNOTHREAD, PTRACE_CONT, PTRACE_EVENT_EXIT, PTRACE_O_EXITKILL, PTRACE_O_TRACECLONE,
    PTRACE_O_TRACEEXEC, PTRACE_O_TRACEEXIT, PTRACE_O_TRACESYSGOOD, PTRACE_SETOPTIONS,
    PTRACE_SYSCALL, PTRACE_TRACEME, SIGSTOP, SIGTRAP, c_int, c_void, ptrace, rusage, timeval,
    wait4,
};

/// [`usage`] without the processor time.
pub fn peak_memory(command: &mut Command) -> (Output, u64) {
    let (output, memory, _) = usage(command);
    (output, memory)
}

/// Runs `command`; gives what it said, the most memory it has had (VmHWM of proc_pid_status(5)), in KiB, and the
/// processor time that it has used, its children's included. The clock on the wall would count what else the
/// machine does.
///
/// The program is stopped at its end to look (ptrace(2)). What wait4(2) says is not used: it counts the
/// memory of whoever has made the process, here the tests, before it becomes the program. Processes that
/// the program makes are not counted.
#[track_caller]
pub fn usage(command: &mut Command) -> (Output, u64, Duration) {
    traced(command, None)
}

/// The same; each thread of it is stopped before and after each of its system calls while `meanwhile` runs.
pub fn usage_with(command: &mut Command, mut meanwhile: impl FnMut()) -> (Output, u64, Duration) {
    traced(command, Some(&mut meanwhile))
}

fn traced(
    command: &mut Command,
    mut meanwhile: Option<&mut dyn FnMut()>,
) -> (Output, u64, Duration) {
    let mut files = [0, 1].map(|_| tempfile::tempfile().expect("a temporary file"));
    let [stdout, stderr] = files.each_ref().map(|file| file.try_clone().expect("a descriptor"));
    let traced = || request(PTRACE_TRACEME, 0, 0);
    // SAFETY: ptrace(2) is one system call, which a process between fork and exec may make.
    #[allow(unsafe_code)]
    let command = unsafe { command.stdout(stdout).stderr(stderr).pre_exec(traced) };
    #[allow(clippy::zombie_processes, reason = "waitpid(2) waits for it")]
    let pid = command.spawn().expect("the program").id().cast_signed();
    let (stopped, status, _) = wait();
    let begun = (pid, SIGTRAP << 8 | 0x7f);
    assert_eq!((stopped, status), begun, "it stops when it has become the program");
    let events = PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL;
    let (go_on, events) = match meanwhile {
        Some(_) => (PTRACE_SYSCALL, events | PTRACE_O_TRACECLONE | PTRACE_O_TRACESYSGOOD),
        None => (PTRACE_CONT, events),
    };
    request(PTRACE_SETOPTIONS, pid, events).expect("ptrace(2)");
    let (mut thread, mut signal, mut memory) = (pid, 0, 0);
    let (status, time) = loop {
        match request(go_on, thread, signal) {
            // Another thread has ended the program meanwhile.
            Err(_) if thread != pid => {}
            other => other.expect("ptrace(2)"),
        }
        let (stopped, status, time) = wait();
        thread = stopped;
        signal = match status >> 8 {
            _ if status & 0xff != 0x7f && thread == pid => break (status, time),
            // A thread's end is nothing to go on from.
            _ if status & 0xff != 0x7f => continue,
            event if event == SIGTRAP | PTRACE_EVENT_EXIT << 8 => {
                if thread == pid {
                    memory = high_water(pid);
                }
                0
            }
            event if event == SIGTRAP | 0x80 => {
                if let Some(meanwhile) = &mut meanwhile {
                    meanwhile();
                }
                0
            }
            // It becomes another program, or starts a thread.
            event if event > 0xff => 0,
            // A new thread stops at its start.
            SIGSTOP if thread != pid => 0,
            // One that came to it.
            signal => signal,
        };
    };
    assert!(memory > 0, "it was not seen at its end");
    let [stdout, stderr] = files.each_mut().map(|file| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("its output");
        bytes
    });
    (Output { status: ExitStatus::from_raw(status), stdout, stderr }, memory, time)
}

fn request(request: u32, pid: i32, data: c_int) -> std::io::Result<()> {
    let data = data as usize as *mut c_void;
    // SAFETY: these requests read and write no memory of ours.
    #[allow(unsafe_code)]
    let done = unsafe { ptrace(request, pid, null_mut::<c_void>(), data) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A thread of the only child of this thread that has stopped or ended, its status, and the processor time so far.
#[track_caller]
fn wait() -> (i32, c_int, Duration) {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<rusage>::zeroed();
    // Other threads of the tests have children too.
    let flags = __WALL | __WNOTHREAD;
    // SAFETY: the child is ours and nobody else waits for it; the places are live, and zeros are a valid rusage.
    #[allow(unsafe_code)]
    let (stopped, usage) =
        unsafe { (wait4(-1, &raw mut status, flags, usage.as_mut_ptr()), usage.assume_init()) };
    assert!(stopped > 0, "wait4(2)");
    let time = |time: timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    (stopped, status, time(usage.ru_utime) + time(usage.ru_stime))
}

fn high_water(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

//! What a program has taken: memory and processor time.

use std::io::{Read as _, Seek as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus, Output};
use std::ptr::null_mut;
use std::time::Duration;

use nix::libc::{
    __WALL, PTRACE_CONT, PTRACE_EVENT_EXIT, PTRACE_O_EXITKILL, PTRACE_O_TRACEEXEC,
    PTRACE_O_TRACEEXIT, PTRACE_SETOPTIONS, PTRACE_TRACEME, SIGTRAP, c_int, c_void, ptrace, rusage,
    timeval, wait4,
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
    let mut files = [0, 1].map(|_| tempfile::tempfile().expect("a temporary file"));
    let [stdout, stderr] = files.each_ref().map(|file| file.try_clone().expect("a descriptor"));
    let traced = || request(PTRACE_TRACEME, 0, 0);
    // SAFETY: ptrace(2) is one system call, which a process between fork and exec may make.
    #[allow(unsafe_code)]
    let command = unsafe { command.stdout(stdout).stderr(stderr).pre_exec(traced) };
    #[allow(clippy::zombie_processes, reason = "waitpid(2) waits for it")]
    let pid = command.spawn().expect("the program").id().cast_signed();
    assert_eq!(wait(pid).0, SIGTRAP << 8 | 0x7f, "it stops when it has become the program");
    request(PTRACE_SETOPTIONS, pid, PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL)
        .expect("ptrace(2)");
    let (mut signal, mut memory) = (0, 0);
    let (status, time) = loop {
        request(PTRACE_CONT, pid, signal).expect("ptrace(2)");
        let (status, time) = wait(pid);
        signal = match status >> 8 {
            _ if status & 0xff != 0x7f => break (status, time),
            event if event == SIGTRAP | PTRACE_EVENT_EXIT << 8 => {
                memory = high_water(pid);
                0
            }
            // It becomes another program.
            event if event > 0xff => 0,
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

/// The status of a child that has stopped or ended, and its processor time so far.
#[track_caller]
fn wait(pid: i32) -> (c_int, Duration) {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<rusage>::zeroed();
    // SAFETY: the child is ours and nobody else waits for it; the places are live, and zeros are a valid rusage.
    #[allow(unsafe_code)]
    let (ended, usage) =
        unsafe { (wait4(pid, &raw mut status, __WALL, usage.as_mut_ptr()), usage.assume_init()) };
    assert_eq!(ended, pid, "wait4(2)");
    let time = |time: timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    (status, time(usage.ru_utime) + time(usage.ru_stime))
}

fn high_water(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

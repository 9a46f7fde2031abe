//! The files of a home that hold the present token, as the shell scripts have them:
//! `~/.molecule-token-cache/gh_installation_token`, and in `..._expiry` the second since 1970 from which it
//! is no longer to be used. Both belong to the home's owner, 0600 in a directory 0700.
//!
//! Beside them lies `lock`: whoever has it locked (flock(2)) asks the platform, and what it holds says
//! how the last request failed.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde_json::{Value, json};

use super::clock;
use super::platform::{RefusalKind, TokenRefusal};
use super::secret::{self, Secret};
use crate::error::{Error, Result};
use crate::fs::{Dir, Kind, at, pause};
use crate::process;

const DIRECTORY: &str = ".molecule-token-cache";
const TOKEN: &CStr = c"gh_installation_token";
const EXPIRY: &CStr = c"gh_installation_token_expiry";
const LOCK: &CStr = c"lock";
/// Where programs other than git look for the token.
const FOR_OTHERS: &CStr = c".gh_token";

/// The longest that a token is used without a new look at it.
pub const LONGEST_USE: Duration = Duration::from_secs(3000);
/// A token is no longer used this long before its end: a clone that has begun with it is to come to its own.
pub const MARGIN: Duration = Duration::from_secs(90);

/// The longest that nobody asks because the platform does not want it.
const LONGEST_WAIT: Duration = Duration::from_secs(900);

/// A token that is still to be used.
#[derive(Debug)]
pub struct CachedToken {
    /// The token.
    pub token: Secret,
    /// The second since 1970 from which it is not, by this machine's clock.
    pub expiry: i64,
}

/// The cache of one home.
#[derive(Debug)]
pub struct TokenCache {
    home: Dir,
    /// Owner and group of the home, for whom root writes.
    owner: Option<(u32, u32)>,
}

/// The home that `environment` names, or else that of the agent.
pub fn home(environment: &[CString]) -> PathBuf {
    process::setting(environment, "HOME").unwrap_or(OsStr::new("/home/agent")).into()
}

impl TokenCache {
    /// The cache in the home of `environment`.
    pub fn open(environment: &[CString]) -> Result<Self> {
        let home = Dir::open_operator_path(home(environment))?;
        let stat = home.stat()?;
        let owner = rustix::process::geteuid().is_root().then_some((stat.uid, stat.gid));
        Ok(Self { home, owner })
    }

    /// The token that is to be used; `None` if there is none, or not surely a good one.
    ///
    /// # Errors
    ///
    /// When something else stands in the place of a file.
    pub fn look(&self) -> Result<Option<CachedToken>> {
        let Some(dir) = self.directory()? else { return Ok(None) };
        // In this order, the other way round than they are written: an old token never gets a new time.
        let Some(expiry) = look_at_expiry(&dir)? else { return Ok(None) };
        let token = secret::read(&dir, TOKEN)?.and_then(Secret::new);
        Ok(token.map(|token| CachedToken { token, expiry }))
    }

    /// How long the token is still to be used; `None` as with [`TokenCache::look`].
    pub fn usable_for(&self) -> Result<Option<Duration>> {
        let Some(dir) = self.directory()? else { return Ok(None) };
        let left =
            look_at_expiry(&dir)?.and_then(|expiry| u64::try_from(expiry - clock::wall()).ok());
        Ok(left.filter(|_| matches!(dir.stat_entry(TOKEN), Ok(Some(_)))).map(Duration::from_secs))
    }

    /// Keeps a token that is good for `left`; returns the second since 1970 from which it is not to be used.
    ///
    /// # Errors
    ///
    /// When it cannot be written. What was there before stays then.
    pub fn store(&self, token: &Secret, left: Duration) -> Result<i64> {
        let dir = self.make_directory()?;
        let expiry = expiry(left);
        dir.replace_file(TOKEN, token.expose(), 0o600, self.owner)?;
        dir.replace_file(EXPIRY, expiry.to_string().as_bytes(), 0o600, self.owner)?;
        Ok(expiry)
    }

    /// Writes the token to `~/.gh_token`.
    pub fn store_for_others(&self, token: &Secret) -> Result<()> {
        self.home.replace_file(FOR_OTHERS, token.expose(), 0o600, self.owner)
    }

    /// Removes the token if it is `refused`; whether it was.
    pub fn forget(&self, refused: &Secret) -> Result<bool> {
        let Some(dir) = self.directory()? else { return Ok(false) };
        let _flight = self.lock(Duration::from_secs(2));
        let held = secret::read(&dir, TOKEN)?.and_then(Secret::new);
        if held.as_ref() != Some(refused) {
            return Ok(false);
        }
        dir.remove_file(TOKEN)?;
        match dir.remove_file(EXPIRY) {
            Err(error) if error.errno() != Some(Errno::NOENT) => Err(error),
            _ => Ok(true),
        }
    }

    /// Takes the lock, for which it waits until `limit` has passed. `None`: somebody holds it for longer, or it
    /// cannot be had at all; nobody is to go without a token for that.
    pub fn lock(&self, limit: Duration) -> Option<TokenFlight> {
        let deadline = Instant::now() + limit;
        let file = self.make_directory().and_then(|dir| self.open_lock(&dir)).ok()?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Some(TokenFlight(file)),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {
                    pause(Duration::from_millis(20));
                }
                Err(_) => return None,
            }
        }
    }

    /// The last failure of any process, unless a request has succeeded since.
    pub fn last_failure(&self) -> Option<FailureNote> {
        read_note(&self.directory().ok()??.open_file(LOCK).ok()?)
    }

    fn open_lock(&self, dir: &Dir) -> Result<OwnedFd> {
        let fail = |errno| dir.entry_error("open", LOCK, errno);
        let file = at::open_or_create(dir, LOCK).map_err(fail)?;
        let stat = at::stat_fd(&file).map_err(fail)?;
        if stat.kind != Kind::File {
            let reason = format!("it is {}", stat.kind.noun());
            return Err(Error::on("lock", dir.join(LOCK), reason));
        }
        if let Some((uid, gid)) = self.owner
            && (stat.size, stat.nlink, stat.uid) == (0, 1, 0)
        {
            at::chown_fd(&file, uid, gid).map_err(fail)?;
        }
        Ok(file)
    }

    fn directory(&self) -> Result<Option<Dir>> {
        self.home.open_beneath(Path::new(DIRECTORY))
    }

    fn make_directory(&self) -> Result<Dir> {
        if let Some(dir) = self.directory()? {
            let stat = dir.stat()?;
            let ours = stat.uid == rustix::process::geteuid().as_raw();
            if ours && stat.mode & 0o077 != 0 {
                dir.chmod(0o700)?;
            }
            return Ok(dir);
        }
        let dir = self.home.make_beneath(Path::new(DIRECTORY), 0o700)?;
        if let Some((uid, gid)) = self.owner {
            dir.chown(uid, gid)?;
        }
        Ok(dir)
    }
}

/// The second since 1970 from which the token is not to be used; `None` if that is past, or nothing to go by.
fn look_at_expiry(dir: &Dir) -> Result<Option<i64>> {
    let Some(text) = dir.read_file(EXPIRY, 64)? else { return Ok(None) };
    let written = dir.stat_entry(EXPIRY)?.map_or(i64::MAX, |stat| stat.mtime.0);
    let expiry = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    let now = clock::wall();
    // Written in the future: the clock has been set back, and nobody knows by how much.
    Ok(expiry.filter(|&expiry| {
        let left = i64::saturating_sub(expiry, now);
        left > 0 && left <= LONGEST_USE.as_secs().cast_signed() && written <= now
    }))
}

/// The second since 1970 from which a token that is good for `left` is not to be used.
pub fn expiry(left: Duration) -> i64 {
    clock::wall().saturating_add(usable(left).as_secs().cast_signed())
}

/// How long a token that is good for `left` is used.
pub fn usable(left: Duration) -> Duration {
    left.saturating_sub(MARGIN).min(LONGEST_USE)
}

/// The right to ask the platform, which one process has at a time.
#[derive(Debug)]
pub struct TokenFlight(OwnedFd);

/// A failed request of some process.
#[derive(Debug)]
pub struct FailureNote {
    /// When, in milliseconds since the machine started.
    pub failed: u64,
    /// When the next one is wanted, likewise.
    pub next: u64,
    /// Whether it will fail as this one did.
    pub permanent: bool,
    /// What went wrong.
    pub reason: String,
}

impl FailureNote {
    /// How long ago that was.
    pub fn age(&self) -> Duration {
        Duration::from_millis(clock::since_boot().saturating_sub(self.failed))
    }

    /// What it says of the next request.
    pub fn kind(&self) -> RefusalKind {
        match self.next.saturating_sub(clock::since_boot()) {
            _ if self.permanent => RefusalKind::Permanent,
            0 if self.next > self.failed => RefusalKind::Busy(Duration::ZERO),
            0 => RefusalKind::Transient,
            left => RefusalKind::Busy(Duration::from_millis(left)),
        }
    }
}

impl TokenFlight {
    /// The last failure, unless a request has succeeded since.
    pub fn last_failure(&self) -> Option<FailureNote> {
        read_note(&self.0)
    }

    /// Leaves word of a failure for those who wait.
    pub fn note_failure(&self, refusal: &TokenRefusal) {
        let now = clock::since_boot();
        let wait = match refusal.kind {
            RefusalKind::Busy(wait) => wait.min(LONGEST_WAIT).as_millis() as u64,
            _ => 0,
        };
        let reason: String = refusal.error.to_string().chars().take(400).collect();
        let note = json!({
            "failed": now,
            "next": now + wait,
            "permanent": refusal.kind == RefusalKind::Permanent,
            "reason": reason,
        });
        self.write(note.to_string().as_bytes());
    }

    /// Takes it back.
    pub fn note_success(&self) {
        self.write(b"");
    }

    /// Best effort: without it those who wait ask for themselves.
    fn write(&self, bytes: &[u8]) {
        let _ = rustix::fs::ftruncate(&self.0, 0);
        let _ = rustix::io::pwrite(&self.0, bytes, 0);
    }
}

fn read_note(file: &OwnedFd) -> Option<FailureNote> {
    let mut bytes = [0; 2048];
    let length = rustix::io::pread(file, &mut bytes, 0).ok()?;
    let note: Value = serde_json::from_slice(&bytes[..length]).ok()?;
    let number = |name| note.get(name).and_then(Value::as_u64);
    let failed = number("failed").filter(|&failed| failed <= clock::since_boot())?;
    let longest = LONGEST_WAIT.as_millis() as u64;
    Some(FailureNote {
        failed,
        // The file is anybody's who has the home.
        next: number("next")?.min(failed + longest),
        permanent: note.get("permanent")?.as_bool()?,
        reason: note.get("reason")?.as_str()?.to_owned(),
    })
}

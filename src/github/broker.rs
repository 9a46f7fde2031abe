//! One token for many who want it: from the cache, from the platform by one of them, or from the
//! environment.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use zeroize::Zeroizing;

use super::cache::{self, CachedToken, TokenCache, TokenFlight};
use super::clock;
use super::platform::{GrantedToken, TokenPlatform, TokenRefusal};
use super::secret::Secret;
use crate::error::{Error, Result};
use crate::process;

/// How long a process waits for another's request, which has 10 seconds and may be made twice.
const WAIT: Duration = Duration::from_secs(22);
/// Variables that may hold a token of the user's own.
const VARIABLES: [&str; 2] = ["GITHUB_TOKEN", "GH_TOKEN"];

/// A token to use.
#[derive(Debug)]
pub struct ObtainedToken {
    /// The token.
    pub token: Secret,
    /// The second since 1970 from which it is not to be used.
    pub expiry: i64,
    /// What did not go well on the way.
    pub warnings: Vec<Error>,
}

/// A token that has been fetched for all.
#[derive(Debug)]
pub struct RefreshedToken {
    /// The token.
    pub token: Secret,
    /// How long it is good.
    pub left: Duration,
    /// Files that could not be written.
    pub warnings: Vec<Error>,
}

/// A token to use now. Nobody asks the platform while another process does.
///
/// # Errors
///
/// When no source has one: why the platform gave none.
pub fn obtain(environment: &[CString]) -> Result<ObtainedToken> {
    let began = clock::since_boot();
    let mut warnings = Vec::new();
    let cache = TokenCache::open(environment).map_err(|error| warnings.push(error)).ok();
    if let Some(found) = look(cache.as_ref(), &mut warnings) {
        return Ok(ObtainedToken { token: found.token, expiry: found.expiry, warnings });
    }
    let flight = cache.as_ref().and_then(|cache| cache.lock(WAIT));
    // Another process may have fetched one meanwhile.
    if flight.is_some()
        && let Some(found) = look(cache.as_ref(), &mut Vec::new())
    {
        return Ok(ObtainedToken { token: found.token, expiry: found.expiry, warnings });
    }
    match fetch_after(flight.as_ref(), began, environment) {
        Ok(granted) => Ok(keep(cache.as_ref(), granted, warnings)),
        Err(error) => from_environment(environment, warnings).ok_or(error),
    }
}

fn look(cache: Option<&TokenCache>, warnings: &mut Vec<Error>) -> Option<CachedToken> {
    cache?.look().unwrap_or_else(|error| {
        warnings.push(error);
        None
    })
}

/// Asks the platform, unless another process has done so in vain since `began`, in milliseconds since the
/// machine started, or it wants to be left alone.
fn fetch_after(
    flight: Option<&TokenFlight>,
    began: u64,
    environment: &[CString],
) -> Result<GrantedToken> {
    if let Some(failure) = flight.and_then(TokenFlight::last_failure) {
        let now = clock::since_boot();
        let error = |reason: String| Error::plain("get a GitHub token", reason);
        if failure.next > now {
            let seconds = (failure.next - now).div_ceil(1000);
            let hint = format!("the platform asks to be left alone for {seconds} s more");
            return Err(error(failure.reason).hint(hint));
        }
        if failure.failed >= began {
            return Err(error(failure.reason));
        }
    }
    fetch(flight, environment).map_err(|refusal| refusal.error)
}

/// Asks the platform, and leaves word of how that ended for those who wait.
fn fetch(
    flight: Option<&TokenFlight>,
    environment: &[CString],
) -> Result<GrantedToken, TokenRefusal> {
    let fetched = TokenPlatform::new(environment, cache::home(environment))
        .map_err(TokenRefusal::before)
        .and_then(|platform| platform.fetch());
    if let Some(flight) = flight {
        match &fetched {
            Ok(_) => flight.note_success(),
            Err(refusal) => flight.note_failure(refusal),
        }
    }
    fetched
}

/// A full or read-only disk keeps nobody from using the token.
fn keep(
    cache: Option<&TokenCache>,
    granted: GrantedToken,
    mut warnings: Vec<Error>,
) -> ObtainedToken {
    let stored = match cache.map(|cache| cache.store(&granted.token, granted.left)) {
        Some(Err(error)) => {
            warnings.push(error);
            None
        }
        other => other.and_then(Result::ok),
    };
    let expiry = stored.unwrap_or_else(|| cache::expiry(granted.left));
    ObtainedToken { token: granted.token, expiry, warnings }
}

/// A token of the user's own, which is never cached. Its end is not known: it is vouched for as long as the
/// longest of the platform's.
fn from_environment(environment: &[CString], warnings: Vec<Error>) -> Option<ObtainedToken> {
    let token = VARIABLES.iter().find_map(|name| {
        let mut bytes = Zeroizing::new(process::setting(environment, name)?.as_bytes().to_vec());
        bytes.retain(|byte| !byte.is_ascii_whitespace());
        Secret::new(bytes)
    })?;
    Some(ObtainedToken { token, expiry: cache::expiry(Duration::MAX), warnings })
}

/// Fetches a token whatever the cache holds, and keeps it for git and for other programs.
///
/// # Errors
///
/// When there is none to be had; the files are as they were then.
pub fn refresh(environment: &[CString]) -> Result<RefreshedToken, TokenRefusal> {
    let cache = TokenCache::open(environment);
    let flight = cache.as_ref().ok().and_then(|cache| cache.lock(WAIT));
    let granted = fetch(flight.as_ref(), environment)?;
    let mut warnings = Vec::new();
    match cache {
        Ok(cache) => {
            warnings.extend(cache.store(&granted.token, granted.left).err());
            warnings.extend(cache.store_for_others(&granted.token).err());
        }
        Err(error) => warnings.push(error),
    }
    Ok(RefreshedToken { token: granted.token, left: granted.left, warnings })
}

//! The platform's answer to a request for a GitHub installation token.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroizing;

use super::clock;
use super::http::{self, HeaderLine, HttpAnswer};
use super::secret::{self, Secret};
use super::url::ServerUrl;
use crate::error::{Error, Result, escape};
use crate::fs::{Dir, pause};
use crate::process;

const DEFAULT_URL: &str = "http://host.docker.internal:8080";
/// The time that a whole answer has.
const LIMIT: Duration = Duration::from_secs(10);
/// How often an empty bearer file is looked at, and the pause before the next look. The file is written
/// in place, seconds after the start of the container.
const LOOKS: u32 = 5;
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The platform returns the same token until this long before its end.
const LEAST_LEFT: Duration = Duration::from_secs(300);
/// No token of GitHub's lives longer (3600 s); more is a clock that is wrong.
const MOST_LEFT: Duration = Duration::from_secs(3600);

/// A token that the platform has handed out just now.
#[derive(Debug)]
pub struct GrantedToken {
    /// The token.
    pub token: Secret,
    /// How long it is good.
    pub left: Duration,
}

/// Why there is no token.
#[derive(Debug)]
pub struct TokenRefusal {
    /// What went wrong.
    pub error: Error,
    /// What it says of a next request.
    pub kind: RefusalKind,
}

/// What a failure says of the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// It may succeed.
    Transient,
    /// It will fail as this one did, until somebody changes something.
    Permanent,
    /// It is not wanted before this time has passed.
    Busy(Duration),
}

impl TokenRefusal {
    fn transient(error: Error) -> Self {
        Self { error, kind: RefusalKind::Transient }
    }

    /// A failure before any request, which no later one mends by itself.
    pub fn before(error: Error) -> Self {
        Self { error, kind: RefusalKind::Permanent }
    }
}

/// Where tokens come from, and who asks.
#[derive(Debug)]
pub struct TokenPlatform {
    url: ServerUrl,
    path: String,
    organization: Option<String>,
    /// Directories that may have the bearer, the first of them that has one counts.
    places: Vec<PathBuf>,
}

impl TokenPlatform {
    /// PLATFORM_URL, WORKSPACE_ID, MOLECULE_ORG_ID and CONFIGS_DIR of `environment`; `home` is the last
    /// place to look for the bearer in.
    ///
    /// # Errors
    ///
    /// For a value of another form.
    pub fn new(environment: &[CString], home: PathBuf) -> Result<Self> {
        let text = |name: &'static str| {
            let value = process::setting(environment, name).map(OsStr::to_str);
            let refuse = || Error::plain(format!("use {name}"), "its value is not UTF-8");
            value.map(|text| text.ok_or_else(refuse)).transpose()
        };
        let url = ServerUrl::parse(text("PLATFORM_URL")?.unwrap_or(DEFAULT_URL))?;
        let path = match text("WORKSPACE_ID")? {
            None => "/admin/github-installation-token".into(),
            Some(id) if is_workspace(id) => format!("/workspaces/{id}/github-installation-token"),
            Some(id) => {
                let shown = escape(&id.chars().take(128).collect::<String>()).to_string();
                let reason = "it is no name of lower-case letters, digits and dashes";
                return Err(Error::plain(format!("use WORKSPACE_ID {shown}"), reason));
            }
        };
        let organization = text("MOLECULE_ORG_ID")?.map(str::to_owned);
        if let Some(id) = &organization
            && (id.len() > 256 || !id.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(Error::plain("use MOLECULE_ORG_ID", "it has white space, or is too long"));
        }
        let configs = process::setting(environment, "CONFIGS_DIR").map(PathBuf::from);
        let places = configs
            .into_iter()
            .chain([PathBuf::from("/configs"), home.join(".molecule-workspace")]);
        Ok(Self { url, path, organization, places: places.collect() })
    }

    /// Asks for a token.
    ///
    /// # Errors
    ///
    /// Says what the platform answered, or why it was not asked; never a word of its answer's content.
    pub fn fetch(&self) -> Result<GrantedToken, TokenRefusal> {
        let answer = self.ask().map_err(TokenRefusal::transient)?;
        // The bearer may have been replaced after it was read, or while.
        let answer = match answer.status {
            401 => self.ask().map_err(TokenRefusal::transient)?,
            _ => answer,
        };
        match answer.status {
            200 => read_grant(answer).map_err(|error| TokenRefusal::transient(self.failed(error))),
            status => Err(self.refused(status, &answer)),
        }
    }

    fn ask(&self) -> Result<HttpAnswer> {
        let bearer = self.bearer()?;
        let mut authorization = Zeroizing::new(Vec::with_capacity(7 + bearer.expose().len()));
        authorization.extend_from_slice(b"Bearer ");
        authorization.extend_from_slice(bearer.expose());
        let mut headers: Vec<HeaderLine<'_>> = vec![
            ("Authorization", &authorization),
            ("Accept", b"application/json"),
            ("User-Agent", concat!("molecule-tools/", env!("CARGO_PKG_VERSION")).as_bytes()),
            ("Origin", self.url.text.as_bytes()),
        ];
        headers.extend(self.organization.as_ref().map(|id| ("X-Molecule-Org-Id", id.as_bytes())));
        http::get(&self.url, &self.path, &headers, LIMIT)
    }

    fn bearer(&self) -> Result<Secret> {
        for look in 1.. {
            let mut complaint = None;
            for place in &self.places {
                match look_for_bearer(place) {
                    Ok(Some(bearer)) => return Ok(bearer),
                    Ok(None) => {}
                    Err(error) => complaint = complaint.or(Some(error)),
                }
            }
            match complaint {
                Some(error) if look >= LOOKS => return Err(error),
                Some(_) => pause(LOOK_AGAIN),
                None => break,
            }
        }
        let places: Vec<_> = self.places.iter().map(|place| place.display().to_string()).collect();
        Err(Error::plain("read the bearer", format!("no .auth_token in {}", places.join(", ")))
            .hint("the platform writes it there soon after the start of a workspace"))
    }

    fn failed(&self, error: Error) -> Error {
        Error::on("request", format!("{}{}", self.url.text, self.path), error.to_string())
    }

    fn refused(&self, status: u16, answer: &HttpAnswer) -> TokenRefusal {
        let (kind, advice) = match status {
            400 if lacks_organization(&answer.body) => {
                (RefusalKind::Permanent, "set MOLECULE_ORG_ID to the id of the organization")
            }
            401 => (
                RefusalKind::Transient,
                "the bearer in .auth_token is not, or not yet, a valid one",
            ),
            403 => (RefusalKind::Permanent, "this workspace may not have tokens"),
            404 => (
                RefusalKind::Permanent,
                "see whether WORKSPACE_ID is right and the GitHub app is installed",
            ),
            429 => (
                RefusalKind::Busy(answer.retry_after.unwrap_or_default()),
                "too many requests; the next one is made later",
            ),
            300..400 => {
                (RefusalKind::Permanent, "redirects are not followed; correct PLATFORM_URL")
            }
            500.. => (
                answer.retry_after.map_or(RefusalKind::Transient, RefusalKind::Busy),
                "the platform has a problem; the next request may succeed",
            ),
            _ => (RefusalKind::Permanent, "see whether PLATFORM_URL is the platform's"),
        };
        let error = self.failed(Error::plain("the answer", format!("status {status}")));
        TokenRefusal { error: error.hint(advice), kind }
    }
}

/// `[a-z0-9][a-z0-9-]{0,127}`
fn is_workspace(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=128).contains(&id.len())
        && id.bytes().all(|byte| plain(byte) || byte == b'-')
        && id.bytes().next().is_some_and(plain)
}

/// `None`: there is no such file or directory.
fn look_for_bearer(place: &PathBuf) -> Result<Option<Secret>> {
    let dir = match Dir::open_operator_path(place) {
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let Some(bytes) = secret::read(&dir, c".auth_token")? else { return Ok(None) };
    let refuse = |reason| Error::on("read the bearer in", dir.join(c".auth_token"), reason);
    match bytes.is_empty() {
        true => Err(refuse("it is still empty")),
        false => Secret::new(bytes).map(Some).ok_or_else(|| refuse("it is no token")),
    }
}

fn read_grant(answer: HttpAnswer) -> Result<GrantedToken> {
    let refuse = |reason: &'static str| Error::plain("read the answer", reason);
    // Not the parser's own words, which may repeat what it found.
    let content = serde_json::from_slice(&answer.body).map_err(|_| refuse("it is no JSON"))?;
    let Value::Object(mut content) = content else { return Err(refuse("it is no JSON object")) };
    let token = match content.remove("token") {
        Some(Value::String(token)) => Zeroizing::new(token.into_bytes()),
        _ => return Err(refuse("it has no token")),
    };
    let token = Secret::new(token).ok_or_else(|| refuse("what it calls token is none"))?;
    let ends = content.get("expires_at").and_then(Value::as_str).and_then(clock::from_rfc3339);
    let left = match ends.map(|ends| ends.saturating_sub(answer.date.unwrap_or_else(clock::wall))) {
        // By the platform's own clock.
        Some(left) if answer.date.is_some() => u64::try_from(left).ok().filter(|&left| left > 0),
        // By the clock of this machine: if that is wrong, the platform's word remains.
        Some(left) if (1..=MOST_LEFT.as_secs().cast_signed()).contains(&left) => {
            left.try_into().ok()
        }
        _ => Some(LEAST_LEFT.as_secs()),
    };
    let left = left.ok_or_else(|| refuse("its token has expired"))?;
    Ok(GrantedToken { token, left: Duration::from_secs(left).min(MOST_LEFT) })
}

/// Whether the platform wants to know the organization.
fn lacks_organization(body: &[u8]) -> bool {
    let Ok(content) = serde_json::from_slice::<Value>(body) else { return false };
    // In the answer itself, or in its "error".
    let found = [content.get("code"), content.get("error"), content.pointer("/error/code")];
    found.into_iter().flatten().any(|code| code == "TENANT_ORG_HEADER_REQUIRED")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_694_400;

    fn grant(body: &str, date: Option<i64>) -> Result<GrantedToken> {
        let body = Zeroizing::new(body.as_bytes().to_vec());
        read_grant(HttpAnswer { status: 200, date, retry_after: None, body })
    }

    #[test]
    fn a_tokens_time_goes_by_the_platforms_clock() {
        let body = |ends: &str| {
            format!(" {{\n  \"expires_at\": \"{ends}\",\n  \"token\": \"ghs_x\"\n}}\n")
        };
        let left = |ends, date| grant(&body(ends), date).map(|grant| grant.left.as_secs()).ok();
        assert_eq!(left("2026-11-26T13:00:00Z", Some(NOON)), Some(3600));
        assert_eq!(left("2026-11-26T14:05:00.25+02:00", Some(NOON)), Some(300));
        assert_eq!(left("2026-11-27T12:00:00Z", Some(NOON)), Some(3600));
        assert_eq!(left("2026-11-26T12:00:00Z", Some(NOON)), None);
        assert_eq!(left("never", Some(NOON)), Some(300));
        // Years away from any clock that a test runs by.
        assert_eq!(left("2001-01-01T00:00:00Z", None), Some(300));
        assert_eq!(left("2101-01-01T00:00:00Z", None), Some(300));
    }

    #[test]
    fn what_is_no_grant_is_refused_without_its_words() {
        for odd in [
            "",
            "x",
            "[]",
            "{}",
            r#"{"token":5}"#,
            r#"{"token":""}"#,
            r#"{"token":"a\nb"}"#,
            r#"{"token":"a b"}"#,
            r#"{"token":"ghs_CANARY"#,
            r#"{"tokens":"ghs_CANARY"}"#,
        ] {
            let error = grant(odd, Some(NOON)).unwrap_err().to_string();
            assert!(!error.contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn settings_of_another_form_are_refused() {
        let platform = |entry: &str| {
            TokenPlatform::new(&[CString::new(entry).unwrap()], PathBuf::from("/home/agent"))
        };
        let long = format!("WORKSPACE_ID={}", "a".repeat(129));
        for odd in [
            "WORKSPACE_ID=../admin",
            "WORKSPACE_ID=-a",
            "WORKSPACE_ID=A",
            "WORKSPACE_ID=a b",
            &long,
            "MOLECULE_ORG_ID=a\r\nb",
            "PLATFORM_URL=x",
        ] {
            assert!(platform(odd).is_err(), "{odd}");
        }
        assert_eq!(platform("WORKSPACE_ID=").unwrap().path, "/admin/github-installation-token");
        assert_eq!(
            platform("WORKSPACE_ID=0-a").unwrap().path,
            "/workspaces/0-a/github-installation-token"
        );
    }
}
